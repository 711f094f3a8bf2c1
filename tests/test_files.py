"""Files and directories that are whole or not there."""

import errno
import json
import os
from pathlib import Path

import pytest

from mmembed.files import (
    bytes_fingerprint,
    file_fingerprint,
    fingerprint,
    whole_directory,
    whole_file,
    write_json,
    write_text,
)


def names(folder):
    return sorted(p.name for p in folder.iterdir())


@pytest.fixture
def flushed(monkeypatch):
    """Inodes in the order in which they were brought to the disk."""
    inodes, fsync = [], os.fsync

    def noted(handle):
        inodes.append(os.fstat(handle).st_ino)
        fsync(handle)

    monkeypatch.setattr(os, "fsync", noted)
    return inodes


def test_a_file_takes_its_name_when_the_block_is_done(tmp_path):
    target = tmp_path / "deep/er/a.txt"

    with whole_file(target) as part:
        part.write_text("new")
        assert not target.exists()
        assert part.parent == target.parent

    assert target.read_text() == "new"
    assert names(target.parent) == ["a.txt"]
    assert target.stat().st_mode & 0o777 == 0o644


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")

    with pytest.raises(RuntimeError, match="half way"), whole_file(target) as part:
        part.write_text("half")
        raise RuntimeError("half way")

    assert target.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_a_directory_replaces_the_old_one_whole(tmp_path):
    target = tmp_path / "run"
    (target / "sub").mkdir(parents=True)
    (target / "sub/stale.txt").write_text("old")

    with whole_directory(target) as part:
        (part / "new").mkdir()
        (part / "new/a.txt").write_text("new")
        assert (target / "sub/stale.txt").exists()

    assert names(tmp_path) == ["run"]
    assert names(target) == ["new"]
    assert (target / "new/a.txt").read_text() == "new"
    assert target.stat().st_mode & 0o777 == 0o755


def test_a_failed_directory_leaves_the_old_one_and_nothing_else(tmp_path):
    target = tmp_path / "run"
    target.mkdir()
    (target / "a.txt").write_text("old")

    with pytest.raises(RuntimeError, match="half way"), whole_directory(target) as part:
        (part / "a.txt").write_text("half")
        raise RuntimeError("half way")

    assert (target / "a.txt").read_text() == "old"
    assert names(tmp_path) == ["run"]


def test_a_folder_is_flushed_after_the_file_in_it_took_its_name(tmp_path, flushed, monkeypatch):
    target, replace = tmp_path / "a.txt", Path.replace
    before = []
    monkeypatch.setattr(Path, "replace", lambda part, to: (before.extend(flushed), replace(part, to))[1])

    write_text(target, "new")

    assert before == [target.stat().st_ino]
    assert flushed == [target.stat().st_ino, tmp_path.stat().st_ino]


def test_a_directory_is_flushed_file_by_file_and_its_parent_after_it_took_its_name(tmp_path, flushed, monkeypatch):
    target, rename = tmp_path / "run", Path.rename
    before = []
    monkeypatch.setattr(Path, "rename", lambda part, to: (before.extend(flushed), rename(part, to))[1])

    with whole_directory(target) as part:
        (part / "sub").mkdir()
        (part / "sub/a.txt").write_text("new")

    assert sorted(before) == sorted(p.stat().st_ino for p in (target, target / "sub", target / "sub/a.txt"))
    assert flushed == [*before, tmp_path.stat().st_ino]


def test_a_directory_that_cannot_take_its_name_gives_it_back(tmp_path, monkeypatch):
    target, rename = tmp_path / "run", Path.rename
    target.mkdir()
    (target / "a.txt").write_text("old")

    def full(path, to):
        if path.suffix == ".part":
            raise OSError(errno.ENOSPC, "no space left")
        return rename(path, to)

    monkeypatch.setattr(Path, "rename", full)

    with pytest.raises(OSError, match="no space left"), whole_directory(target) as part:
        (part / "a.txt").write_text("new")

    assert names(tmp_path) == ["run"]
    assert (target / "a.txt").read_text() == "old"


def test_text_is_utf8_and_json_readable(tmp_path):
    write_text(tmp_path / "a.txt", "café 東京\n")
    write_json(tmp_path / "a.json", {"name": "東京", "values": [1, 2.5]})

    assert (tmp_path / "a.txt").read_bytes() == "café 東京\n".encode()
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"name": "東京", "values": [1, 2.5]}
    assert "東京" in (tmp_path / "a.json").read_text(encoding="utf-8")


def test_json_has_no_nan_and_the_old_file_stays(tmp_path):
    write_json(tmp_path / "a.json", 1)

    with pytest.raises(ValueError, match="not JSON compliant: nan"):
        write_json(tmp_path / "a.json", float("nan"))

    assert (tmp_path / "a.json").read_text() == "1\n"


def test_fingerprints_name_parts_and_their_boundaries():
    values = [fingerprint("ab", "c"), fingerprint("a", "bc"), fingerprint("abc"), fingerprint(), fingerprint("")]

    assert len(set(values)) == 5
    assert fingerprint("é") == fingerprint("é".encode())
    assert all(len(value) == 32 and int(value, 16) >= 0 for value in values)


def test_a_files_fingerprint_names_its_bytes(tmp_path):
    (tmp_path / "a").write_bytes(b"bytes" * 1000)
    (tmp_path / "b").write_bytes(b"bytes" * 1001)

    assert file_fingerprint(tmp_path / "a") == bytes_fingerprint(b"bytes" * 1000)
    assert file_fingerprint(tmp_path / "b") != file_fingerprint(tmp_path / "a")
