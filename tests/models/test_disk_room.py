"""Room in a folder of files: the bound, who goes first, and what is let alone."""

import os

import pytest

from mmembed.models.disk_room import LEDGER, DiskRoom

SPACE = "0" * 32


def write(room, number, size=100):
    """A file as a store writes it, used at second ``number``."""
    assert room.reserve(size)
    path = room.directory / SPACE / f"{number:02x}" / f"{number:02x}{'0' * 30}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(size))
    os.utime(path, (number, number))
    return path


def total(folder):
    return sum(path.stat().st_size for path in folder.glob("*/*/*.safetensors"))


def test_the_files_used_least_lately_go_first_and_the_bound_is_kept(tmp_path):
    room = DiskRoom(tmp_path, 1000)
    paths = [write(room, number) for number in range(1, 11)]
    os.utime(paths[0], (100, 100))

    paths.append(write(room, 11))

    assert total(tmp_path) <= 1000
    # down to nine tenths, so that the folder is not listed for each file that comes
    assert [path.exists() for path in paths] == [True, False, *[True] * 9]


def test_two_processes_keep_the_bound_together(tmp_path):
    ours, theirs = DiskRoom(tmp_path, 1000), DiskRoom(tmp_path, 1000)

    for number in range(40):
        write(ours if number % 2 else theirs, number)

        assert total(tmp_path) <= 1000


def test_a_file_over_the_whole_bound_gets_no_room_and_drives_no_other_out(tmp_path):
    room = DiskRoom(tmp_path, 1000)
    kept = write(room, 1)

    assert not room.reserve(1001)
    assert kept.exists()


def test_what_a_process_finds_counts_whatever_the_ledger_says(tmp_path):
    for number in range(1, 10):
        write(DiskRoom(tmp_path, 10_000), number)
    (tmp_path / LEDGER).write_text("")

    write(DiskRoom(tmp_path, 900), 10)

    assert total(tmp_path) <= 900


def test_other_files_in_the_folder_are_neither_counted_nor_removed(tmp_path):
    foreign = [
        tmp_path / "photo.safetensors",
        tmp_path / SPACE / "space.json",
        tmp_path / SPACE / f"{'1' * 32}.safetensors",
        tmp_path / "other" / "00" / f"{'0' * 32}.safetensors",
        tmp_path / SPACE / "00" / "notes.safetensors",
    ]
    for path in foreign:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(5000))
        os.utime(path, (0, 0))
    room = DiskRoom(tmp_path, 250)

    written = [write(room, number) for number in (1, 2, 3)]

    assert all(path.exists() for path in foreign)
    assert [path.exists() for path in written] == [False, True, True]


@pytest.mark.parametrize(("age_s", "left"), [(10, True), (10**6, False)])
def test_what_a_killed_process_left_half_written_goes_after_a_day(age_s, left, tmp_path):
    part = tmp_path / SPACE / "00" / f".{'0' * 32}.safetensors.ab12_x.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"half")
    os.utime(part, (part.stat().st_mtime - age_s,) * 2)

    DiskRoom(tmp_path, 1000).reserve(1)

    assert part.exists() is left
