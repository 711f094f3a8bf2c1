from pathlib import Path

import PIL.Image
import pytest

from mmembed.errors import MediaError
from mmembed.media.sources import existing_file, source_name


def test_a_source_is_called_by_its_path_or_by_what_is_known_of_it(tmp_path):
    path = tmp_path / "red.png"
    PIL.Image.new("RGB", (6, 4), "red").save(path)

    assert source_name("clips/a.mp4") == source_name(Path("clips/a.mp4")) == "clips/a.mp4"
    assert source_name(b"12345") == "5 bytes in memory"
    assert source_name((b"1", "frame.jpg")) == "2 frames in memory"
    assert source_name(PIL.Image.new("RGB", (6, 4))) == "an open picture of 6 x 4 pixels"
    with PIL.Image.open(path) as opened:
        assert source_name(opened) == str(path)


def test_a_relative_file_becomes_absolute(tmp_path, monkeypatch):
    (tmp_path / "a:b.mp4").write_bytes(b"x")
    monkeypatch.chdir(tmp_path)

    assert existing_file("a:b.mp4") == tmp_path / "a:b.mp4"


@pytest.mark.parametrize(("name", "got"), [("gone.mp4", "no such file"), (".", "a folder")])
def test_what_is_no_file_is_refused_with_what_it_is(tmp_path, name, got):
    with pytest.raises(MediaError, match=rf"expected a file, got {got}; check the path and --data-root"):
        existing_file(tmp_path / name)
