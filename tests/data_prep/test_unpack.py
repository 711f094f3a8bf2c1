"""Archives unpack whole or not at all, and nothing of them lands elsewhere."""

import io
import os
import shutil
import stat
import tarfile
import zipfile
from collections import namedtuple

import pytest

from data_prep.engine import unpack as module
from data_prep.engine.unpack import Archive, archives_of, is_archive, is_shown, is_unpacked, refuse_unknown, unpack
from mmembed.errors import InputError

FILES = {"a/one.txt": b"1" * 3000, "a/b/two.txt": os.urandom(5000), "three.txt": b""}


def tar(path, files=FILES, mode="w:gz", members=()):
    with tarfile.open(path, mode) as packed:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            packed.addfile(member, io.BytesIO(data))
        for member in members:
            packed.addfile(member)
    return Archive(path.name, (path,))


def zipped(path, files=FILES):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, data in files.items():
            packed.writestr(name, data)
    return Archive(path.name, (path,))


def link(name, target, kind=tarfile.SYMTYPE):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ["x.tar", "x.tar.gz", "x.tgz", "x.zip"])
def test_every_kind_of_archive_unpacks(tmp_path, name):
    kind = zipped if name.endswith("zip") else tar
    archive = kind(tmp_path / name, **({} if kind is zipped else {"mode": "w" if name.endswith(".tar") else "w:gz"}))

    folder = unpack(archive, tmp_path / "out")

    assert contents(folder) == FILES
    assert is_unpacked(archive, folder)
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith(".part")] == []


def test_a_tar_that_is_compressed_in_spite_of_its_name_unpacks(tmp_path):
    assert contents(unpack(tar(tmp_path / "x.tar", mode="w:gz"), tmp_path / "out")) == FILES


@pytest.mark.parametrize("pattern", ["x.tar.gz-{:02d}", "x.tar.part-{:02d}", "x.zip.{:03d}"])
def test_pieces_are_read_as_one_archive(tmp_path, pattern):
    whole = tmp_path / "whole"
    (zipped if ".zip" in pattern else tar)(whole)
    data = whole.read_bytes()
    size = len(data) // 3
    for number in range(4):
        (tmp_path / pattern.format(number)).write_bytes(data[number * size : (number + 1) * size])
    names = [path.name for path in tmp_path.iterdir() if is_archive(path.name)]

    (archive,) = archives_of(tmp_path, names)

    assert archive.name == pattern.split("{")[0].rstrip("-.").removesuffix(".part")
    assert contents(unpack(archive, tmp_path / "out")) == FILES


def test_a_missing_piece_is_named(tmp_path):
    for number in (0, 1, 3):
        (tmp_path / f"x.tar.gz-0{number}").touch()

    with pytest.raises(InputError, match=r"x\.tar\.gz: expected every piece of the archive, got no piece 2"):
        archives_of(tmp_path, [path.name for path in tmp_path.iterdir()])


@pytest.mark.parametrize("name", ["x.tar", "x.tar.gz", "x.zip"])
@pytest.mark.parametrize("share", [0.2, 0.6, 0.97])
def test_a_truncated_archive_leaves_nothing(tmp_path, name, share):
    path = tmp_path / name
    archive = zipped(path) if name.endswith("zip") else tar(path, mode="w" if name == "x.tar" else "w:gz")
    # a plain tar is filled up to 10240 bytes: cut into what it holds
    end = 3 * 512 + 3072 + 5120 if name == "x.tar" else path.stat().st_size
    path.write_bytes(path.read_bytes()[: int(end * share)])

    with pytest.raises(InputError, match=f"{name}: expected a whole archive, got .*; download it again"):
        unpack(archive, tmp_path / "out")

    assert sorted(child.name for child in tmp_path.iterdir()) == [name]


def test_a_tar_cut_between_two_files_is_not_whole(tmp_path):
    path = tmp_path / "x.tar"
    archive = tar(path, mode="w")
    path.write_bytes(path.read_bytes()[: 512 + 3072])

    with pytest.raises(InputError, match=r"the end of the archive is missing"):
        unpack(archive, tmp_path / "out")


def test_a_broken_header_within_a_tar_is_not_its_end(tmp_path):
    path = tmp_path / "x.tar"
    archive = tar(path, mode="w")
    data = bytearray(path.read_bytes())
    data[512 + 3072 + 150] ^= 1
    path.write_bytes(data)

    with pytest.raises(InputError, match=r"expected a whole archive"):
        unpack(archive, tmp_path / "out")


def test_a_flipped_bit_is_found_by_the_checksum(tmp_path):
    for name, kind in (("x.tar.gz", tar), ("x.zip", zipped)):
        path = tmp_path / name
        archive = kind(path, {"noise.bin": os.urandom(50_000)})
        data = bytearray(path.read_bytes())
        data[25_000] ^= 1
        path.write_bytes(data)

        with pytest.raises(InputError, match=f"{name}: expected a whole archive"):
            unpack(archive, tmp_path / "out")


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/tmp/evil", "..\\evil"])
def test_a_path_that_leads_out_is_refused(tmp_path, name):
    for kind, file in ((tar, "x.tar.gz"), (zipped, "x.zip")):
        archive = kind(tmp_path / file, {"good.txt": b"1", name: b"2"})

        with pytest.raises(InputError, match=r"expected a path inside the archive, got '.*evil'"):
            unpack(archive, tmp_path / "deep" / "out")

        assert not list((tmp_path / "deep").iterdir())
    assert not list(tmp_path.rglob("evil"))


@pytest.mark.parametrize(
    "members",
    [
        [link("a/out", "../../elsewhere")],
        [link("out", "/etc")],
        [link("a/out", "b/../../../elsewhere")],
        [link("hard", "../elsewhere", tarfile.LNKTYPE)],
    ],
    ids=["up", "absolute", "hidden", "hard"],
)
def test_a_link_that_leads_out_is_refused(tmp_path, members):
    archive = tar(tmp_path / "x.tar.gz", members=members)

    with pytest.raises(InputError, match=r"expected a link inside the archive, got a link to '.*'"):
        unpack(archive, tmp_path / "out")

    assert not (tmp_path / "out").exists()


def test_nothing_is_written_through_a_link(tmp_path):
    path = tmp_path / "x.tar.gz"
    with tarfile.open(path, "w:gz") as packed:
        packed.addfile(link("a/to", "."))
        packed.addfile(tarfile.TarInfo("a/to/file"), io.BytesIO())

    with pytest.raises(InputError, match=r"a/to/file: expected a path of folders, got a path through a link"):
        unpack(Archive(path.name, (path,)), tmp_path / "out")


def test_a_link_inside_stays_a_link(tmp_path):
    archive = tar(tmp_path / "x.tar.gz", members=[link("a/same.txt", "one.txt"), link("a/b/up.txt", "../one.txt")])

    folder = unpack(archive, tmp_path / "out")

    assert (folder / "a/same.txt").read_bytes() == (folder / "a/b/up.txt").read_bytes() == FILES["a/one.txt"]


def test_a_hard_link_to_nothing_is_an_error_in_words(tmp_path):
    archive = tar(tmp_path / "x.tar", mode="w", members=[link("hard", "nothing", tarfile.LNKTYPE)])

    with pytest.raises(InputError, match=r"x\.tar: expected a whole archive, got KeyError: .*nothing"):
        unpack(archive, tmp_path / "out")

    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["x.tar.xz", "d/x.tar.bz2", "x.7z"])
def test_an_archive_of_another_kind_is_refused_by_its_name(tmp_path, name):
    with pytest.raises(
        InputError, match=rf"{name}: expected a \.zip, \.tar, \.tar\.gz or \.tgz, got another; unpack it"
    ):
        refuse_unknown(tmp_path, ["x.zip", "images/*", name])


def test_whether_an_archive_lies_unpacked_is_seen_by_its_files(tmp_path):
    for kind, name in ((zipped, "x.zip"), (tar, "x.tar.gz")):
        archive, folder = kind(tmp_path / name), tmp_path / f"{name}-out"
        unpack(archive, folder)

        assert is_shown(archive, folder)
        assert is_shown(archive, folder / "a", strip="a") is False
        (folder / "three.txt").rename(folder / "a/three.txt")
        assert is_shown(archive, folder / "a", strip="a")
        (folder / "a/one.txt").unlink()
        assert not is_shown(archive, folder / "a", strip="a")
        assert not is_shown(archive, tmp_path / "nowhere")
    # nobody can tell
    (tmp_path / "x.zip").write_text("cut")
    assert is_shown(Archive("x.zip", (tmp_path / "x.zip",)), tmp_path / "nowhere")


def test_devices_and_links_in_a_zip_are_refused(tmp_path):
    device = tarfile.TarInfo("null")
    device.type = tarfile.CHRTYPE
    with pytest.raises(InputError, match=r"null: expected a file, folder or link, got a device or pipe"):
        unpack(tar(tmp_path / "x.tar.gz", members=[device]), tmp_path / "out")

    with zipfile.ZipFile(tmp_path / "x.zip", "w") as packed:
        entry = zipfile.ZipInfo("out")
        entry.external_attr = (stat.S_IFLNK | 0o777) << 16
        packed.writestr(entry, "/etc")
    with pytest.raises(InputError, match=r"out: expected a file or folder, got a link or device"):
        unpack(Archive("x.zip", (tmp_path / "x.zip",)), tmp_path / "out")


def test_an_archive_that_unpacks_to_far_too_much_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "FREE_BYTES", 1000)
    for kind, file in ((tar, "x.tar.gz"), (zipped, "x.zip")):
        archive = kind(tmp_path / file, {"zeros": bytes(5_000_000)})

        with pytest.raises(InputError, match=r"expected at most \d+ bytes, 100 times the archive, got 5000000 bytes"):
            unpack(archive, tmp_path / "out")

        assert not (tmp_path / "out").exists()


def test_no_room_on_the_disk_is_said_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: namedtuple("Usage", "free")(10))
    for kind, file in ((tar, "x.tar.gz"), (zipped, "x.zip")):
        archive = kind(tmp_path / file)

        with pytest.raises(InputError, match=rf"{file}: expected 0\.0 GB of room in .*, got 0\.0 GB; free space"):
            unpack(archive, tmp_path / "out")

        assert not (tmp_path / "out").exists()


def test_an_archive_is_unpacked_once_and_again_when_it_changed(tmp_path):
    path = tmp_path / "x.tar.gz"
    folder = unpack(tar(path), tmp_path / "out")
    (folder / "mark").touch()

    unpack(Archive("x.tar.gz", (path,)), folder)
    assert (folder / "mark").exists()

    unpack(tar(path, {"other.txt": b"new"}), folder)
    assert contents(folder) == {"other.txt": b"new"}


def test_a_folder_without_its_marker_is_not_taken_for_whole(tmp_path):
    archive = tar(tmp_path / "x.tar.gz")
    for name in ("out", ".out.part"):
        (tmp_path / name / "a").mkdir(parents=True)
        (tmp_path / name / "left.txt").touch()

    assert not is_unpacked(archive, tmp_path / "out")
    assert contents(unpack(archive, tmp_path / "out")) == FILES
    assert not (tmp_path / ".out.part").exists()
