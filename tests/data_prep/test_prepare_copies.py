"""Local copies: another one takes the place of the first, parts that lie unpacked hide nothing, and published trees."""

import shutil
import tarfile
import zipfile
from dataclasses import replace

import pytest

from data_prep.engine.manifest import is_prepared, read_manifest
from data_prep.engine.preparation import Wishes
from data_prep.miniatures.draw import draw_source
from data_prep.prepare import prepare
from data_prep.source import read_source
from mmembed.data.tables import open_table
from mmembed.errors import InputError
from tests.data_prep.publisher import MEDIA, PAIRS, RANKED, ROWS, Publisher, source


def unpacked(folder):
    """A publisher whose pictures lie unpacked beside the archive, in a folder and in one below it."""
    made = Publisher(folder)
    for place in ("images/more", "images"):
        shutil.copytree(made.packed, made.repo / place, dirs_exist_ok=True)
    return made


def test_the_media_of_an_earlier_copy_go_when_another_is_given(tmp_path, data):
    first, second = unpacked(tmp_path / "a"), unpacked(tmp_path / "b")
    prepare(source(), data, copies=first.copies)
    (second.repo / "images/more/0.png").unlink()

    manifest = prepare(source(), data, copies=second.copies)

    assert (data / "drawn/media/images/0.png").resolve() == second.repo / "images/0.png"
    assert not (data / "drawn/media/images/more/0.png").exists()
    assert list(manifest["sets"]) == ["pairs", "ranked"]


def test_a_set_whose_media_went_with_the_earlier_copy_is_no_longer_prepared(tmp_path, data, capsys):
    first, second = unpacked(tmp_path / "a"), unpacked(tmp_path / "b")
    prepare(source(), data, copies=first.copies)

    prepare(source(PAIRS), data, copies=second.copies)

    assert list(read_manifest(data, "drawn")["sets"]) == ["pairs"]
    assert "drawn/ranked: its media were of another copy; it is to be prepared again" in capsys.readouterr().err


def test_sets_of_one_copy_keep_the_media_of_each_other(tmp_path, data):
    publisher = Publisher(tmp_path)
    publisher.studio.archive(publisher.repo / "more.zip", publisher.packed)
    other = replace(RANKED, media=(replace(MEDIA, files=("more.zip",), root=""),))
    prepare(source(PAIRS, other), data, copies=publisher.copies)

    for wishes in (Wishes(), Wishes(overwrite=True)):
        manifest = prepare(source(PAIRS, other), data, copies=publisher.copies, wishes=wishes)
        assert list(manifest["sets"]) == ["pairs", "ranked"]


def test_pictures_that_differ_under_one_name_are_refused_and_replaced_on_demand(tmp_path, data, capsys):
    publisher = Publisher(tmp_path)
    prepare(source(PAIRS), data, copies=publisher.copies)
    (publisher.packed / "0.png").write_bytes((publisher.packed / "1.png").read_bytes())
    publisher.studio.archive(publisher.repo / "more.zip", publisher.packed)
    other = source(replace(RANKED, media=(replace(MEDIA, files=("more.zip",), root=""),)))

    with pytest.raises(
        InputError, match=r"images/0\.png: expected one file of that name, got .*; prepare it with --ov"
    ):
        prepare(other, data, copies=publisher.copies)
    assert is_prepared(data, "drawn", PAIRS)
    manifest = prepare(other, data, copies=publisher.copies, wishes=Wishes(overwrite=True))

    assert (data / "drawn/media/images/0.png").read_bytes() == (publisher.packed / "0.png").read_bytes()
    assert list(manifest["sets"]) == ["ranked"]
    assert "drawn/pairs: ranked has another file of the name of " in capsys.readouterr().err


def test_a_set_is_not_prepared_once_its_archive_was_unpacked_anew_for_another(tmp_path, data):
    publisher = Publisher(tmp_path)
    prepare(source(), data, copies=publisher.copies)
    (publisher.packed / "0.png").write_bytes((publisher.packed / "1.png").read_bytes())
    publisher.pack()

    prepare(source(PAIRS), data, copies=publisher.copies)

    assert is_prepared(data, "drawn", PAIRS)
    assert not is_prepared(data, "drawn", RANKED)


def test_what_lies_half_unpacked_does_not_hide_the_archive(tmp_path, data):
    publisher = Publisher(tmp_path)
    shutil.copytree(publisher.packed, publisher.repo / "images/other")
    shutil.copy(publisher.packed / "0.png", publisher.repo / "images")

    prepare(source(PAIRS), data, copies=publisher.copies)

    assert len(open_table(data / "drawn/pairs.parquet")) == ROWS
    assert (data / "drawn/media/images/other/0.png").is_file()


def test_an_archive_that_git_lfs_did_not_pull_is_named(tmp_path, data):
    publisher = Publisher(tmp_path)
    publisher.archive.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")

    with pytest.raises(
        InputError, match=r"pictures\.zip: expected an archive, got a Git LFS pointer; run git lfs pull"
    ):
        prepare(source(PAIRS), data, copies=publisher.copies)


def test_an_archive_of_another_kind_is_named(tmp_path, data):
    publisher = Publisher(tmp_path)
    (publisher.repo / "x.tar.xz").touch()
    row = replace(PAIRS, media=(replace(MEDIA, files=("x.tar.xz",)),))

    with pytest.raises(InputError, match=r"x\.tar\.xz: expected a \.zip, \.tar, \.tar\.gz or \.tgz, got another"):
        prepare(source(row), data, copies=publisher.copies)


def clone(repo, place):
    """A drawn repository as Git cloned it."""
    place.parent.mkdir(parents=True, exist_ok=True)
    repo.rename(place)
    owner, name = repo.parts[-2:]
    (place / ".git").mkdir()
    (place / ".git/config").write_text(f'[remote "origin"]\n\turl = https://huggingface.co/datasets/{owner}/{name}/\n')


def untar(archive, folder):
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")


def test_the_tree_that_the_published_download_makes_for_training_is_taken(tmp_path, data):
    parts = [read_source("mmeb_train").only(["OK-VQA", "WebQA"]), read_source("llava_hound")]
    tree = tmp_path / "vlm2vec_train"
    for part in parts:
        draw_source(part, tmp_path / "drawn")
    clone(tmp_path / "drawn/TIGER-Lab/MMEB-train", tree / "MMEB-train")
    clone(tmp_path / "drawn/ShareGPTVideo/train_video_and_instruction", tree / "video")
    for archive in (tree / "MMEB-train/images_zip").glob("*.zip"):
        with zipfile.ZipFile(archive) as packed:
            packed.extractall(tree / "MMEB-train/images")
    for archive in (tree / "video/train_300k").glob("*.tar.gz"):
        untar(archive, archive.parent)

    for git in (True, False):
        if not git:
            shutil.rmtree(tree / "video/.git")
            shutil.rmtree(tree / "MMEB-train/.git")
        for part in parts:
            manifest = prepare(part, data / f"{git}", copies=tree, wishes=Wishes(compare=False))
            assert [entry["put_aside"]["count"] for entry in manifest["sets"].values()] == [0] * len(part.sets)
        assert not (data / f"{git}" / "unpacked").exists()


@pytest.mark.parametrize("moved", [True, False], ids=["as published", "not moved up"])
def test_the_tree_that_the_published_download_makes_for_evaluation_is_taken(tmp_path, data, moved):
    parts = [
        read_source("mmeb_eval").only(["OK-VQA", "CIRR"]),
        read_source("mmeb_v2_video").only(["K700", "MSR-VTT", "QVHighlight", "NExTQA"]),
    ]
    tree, rows = tmp_path / "vlm2vec_eval", tmp_path / "rows"
    for part in parts:
        draw_source(part, rows)
    clone(rows / "TIGER-Lab/MMEB-V2", tree)
    frames, images = tree / "video-tasks/frames", tree / "image-tasks"
    untar(images / "mmeb_v1.tar.gz", images)
    if moved:
        for entry in list((images / "MMEB").iterdir()):
            entry.rename(images / entry.name)
        (images / "MMEB").rmdir()
    for name, folder in (("video_cls", "video_cls"), ("video_ret", "video_ret"), ("video_mret", ".")):
        untar(frames / f"{name}.tar.gz", frames / folder)
    whole = b"".join(piece.read_bytes() for piece in sorted(frames.glob("video_qa.tar.gz-*")))
    (tmp_path / "whole.tar.gz").write_bytes(whole)
    untar(tmp_path / "whole.tar.gz", frames)

    with pytest.raises(InputError, match=r"mmeb_eval/OK-VQA: --source: expected a copy of ziyjiang/MMEB_Test_Instruct"):
        prepare(parts[0], data, copies=tree)
    for part in parts:
        manifest = prepare(part, data, copies=[tree, rows], wishes=Wishes(compare=False))
        assert list(manifest["sets"]) == list(part.sets)
    assert not (data / "unpacked").exists()
    # without what Git wrote the folders in it tell what it is
    shutil.rmtree(tree / ".git")
    prepare(parts[0], data / "again", copies=[rows, tree], wishes=Wishes(compare=False))


def test_a_repository_that_several_copies_have_is_taken_from_the_first(tmp_path, data):
    first, second = Publisher(tmp_path / "a"), Publisher(tmp_path / "b")

    manifest = prepare(source(PAIRS), data, copies=[first.copies, second.copies])

    assert manifest["sets"]["pairs"]["inputs"]["o/n"]["copy"] == str(first.repo)
