"""Frames are stored by the published rules, all of a clip or none."""

import PIL.Image
import pytest

from data_prep.extract_frames import evenly, extract_frames, main, step
from data_prep.miniatures.studio import Studio
from mmembed.errors import InputError
from mmembed.items import frame_files
from mmembed.media.readers import PyAVReader
from mmembed.media.settings import UniformFrames


@pytest.fixture
def clips(tmp_path):
    studio = Studio(tmp_path)
    for name, frames in (("a.mp4", 70), ("below/b.mp4", 5)):
        studio.clip(tmp_path / "clips" / name, frames)
    return tmp_path / "clips"


def test_the_first_rule_keeps_all_frames_or_64_at_even_distances():
    assert evenly(64, 64) == list(range(64))
    assert evenly(5, 64) == [0, 1, 2, 3, 4]
    assert evenly(65, 64)[:3] == [0, 1, 2]
    assert evenly(130, 64) == [int(i * 130 / 64) for i in range(64)]
    assert evenly(130, 64)[-1] == 127


def test_the_second_rule_takes_every_nth_frame():
    assert step(5, 64) == [0, 1, 2, 3, 4]
    assert step(127, 64) == list(range(64))
    assert step(128, 64) == list(range(0, 128, 2))
    assert step(200, 64) == list(range(0, 192, 3))


@pytest.mark.parametrize(
    ("stored", "used"),
    [(64, [0, 9, 18, 27, 36, 45, 54, 63]), (10, [0, 1, 2, 3, 5, 6, 7, 9]), (5, [0, 1, 2, 3, 4])],
)
def test_the_frames_used_of_those_stored_are_the_published_ones(stored, used):
    assert UniformFrames(8).indices(len(evenly(stored, 64)), 1.0) == used


def test_stored_frames_are_those_of_the_clip_under_their_published_names(clips, tmp_path):
    folder = extract_frames(clips / "a.mp4", tmp_path / "out")

    files = frame_files(folder)
    assert [file.name for file in files] == [f"frame_{number:04d}.jpg" for number in range(1, 65)]
    reader = PyAVReader(clips / "a.mp4", "a")
    for number in (0, 31, 63):
        (frame,) = reader.frames([evenly(70, 64)[number]])
        stored = PIL.Image.open(files[number]).convert("RGB")
        apart = [abs(x - y) for x, y in zip(frame.tobytes(), stored.tobytes(), strict=True)]
        assert sum(apart) / len(apart) < 6


def test_the_second_rule_counts_its_files_from_0(clips, tmp_path):
    folder = extract_frames(clips / "below/b.mp4", tmp_path / "out", most=3, rule="step")

    assert [file.name for file in frame_files(folder)] == ["0000.jpeg", "0001.jpeg", "0002.jpeg"]


def test_a_clip_that_does_not_decode_leaves_nothing(clips, tmp_path):
    (clips / "cut.mp4").write_bytes((clips / "a.mp4").read_bytes()[:3000])

    with pytest.raises(InputError, match=r"cut\.mp4: expected a video that decodes"):
        extract_frames(clips / "cut.mp4", tmp_path / "out")
    with pytest.raises(InputError, match=r"gone\.mp4: expected a file, got no such file"):
        extract_frames(clips / "gone.mp4", tmp_path / "out")

    assert not (tmp_path / "out").exists()


def test_an_unknown_rule_is_refused(clips, tmp_path):
    with pytest.raises(InputError, match=r"expected a rule, got 'stepp'; did you mean 'step'\?"):
        extract_frames(clips / "a.mp4", tmp_path / "out", rule="stepp")
    with pytest.raises(InputError, match=r"expected 1 frame or more, got 0"):
        extract_frames(clips / "a.mp4", tmp_path / "out", most=0)


def test_the_command_stores_every_clip_once_and_names_those_that_fail(clips, tmp_path, capsys):
    (clips / "words.mp4").write_text("no clip")
    command = [str(clips), "--output", str(tmp_path / "out"), "--most", "4"]

    assert main(command) == 1
    said = capsys.readouterr()
    assert "3 clips: 2 stored, 0 there before, 1 failed" in said.out
    assert "words.mp4: expected a video that decodes" in said.err
    assert len(frame_files(tmp_path / "out/below/b")) == 4

    (clips / "words.mp4").unlink()
    assert main(command) == 0
    assert "2 clips: 0 stored, 2 there before, 0 failed" in capsys.readouterr().out


def stored(folder):
    return [file.name for file in frame_files(folder)]


def test_frames_by_another_rule_or_of_a_clip_that_changed_are_stored_anew(clips, tmp_path, capsys):
    out = tmp_path / "out"
    command = [str(clips / "below"), "--output", str(out), "--most", "4"]
    main(command)

    assert main([*command, "--rule", "step"]) == 0
    assert stored(out / "b") == [f"{number:04d}.jpeg" for number in range(4)]
    assert main([*command, "--most", "2"]) == 0
    assert stored(out / "b") == ["frame_0001.jpg", "frame_0002.jpg"]
    Studio(tmp_path).clip(clips / "below/b.mp4", 1)
    assert main([*command, "--most", "2"]) == 0
    assert stored(out / "b") == ["frame_0001.jpg"]
    assert "there before, 0 failed" in capsys.readouterr().out
    assert main([*command, "--most", "2"]) == 0
    assert "0 stored, 1 there before" in capsys.readouterr().out


def test_frames_of_another_clip_and_those_of_others_are_not_replaced(clips, tmp_path, capsys):
    out = tmp_path / "out"
    (clips / "below/b.mp4").rename(clips / "below/b.mkv")
    extract_frames(clips / "a.mp4", out / "below/b", most=2)
    Studio(tmp_path).frames(out / "a", 3)

    assert main([str(clips), "--output", str(out)]) == 1

    said = capsys.readouterr()
    assert "2 clips: 0 stored, 0 there before, 2 failed" in said.out
    assert "b: expected nothing, or frames of b.mkv, got those of a.mp4" in said.err
    assert "a: expected nothing, or frames of a.mp4, got other files; take them away" in said.err
    assert len(stored(out / "a")) == 3


def test_two_clips_of_one_folder_are_both_refused(clips, tmp_path, capsys):
    Studio(tmp_path).clip(clips / "below/b.mkv", 3)

    assert main([str(clips), "--output", str(tmp_path / "out")]) == 1

    said = capsys.readouterr()
    assert "3 clips: 1 stored, 0 there before, 2 failed" in said.out
    assert "b.mkv: expected a folder of its own, got" in said.err
    assert not (tmp_path / "out/below").exists()


def test_a_folder_without_clips_is_named(tmp_path, capsys):
    assert main([str(tmp_path / "none"), "--output", str(tmp_path / "out")]) == 2
    assert "none: expected clips (.mp4, .webm, ...), got no such folder" in capsys.readouterr().err
