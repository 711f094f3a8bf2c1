from dataclasses import replace

import av
import numpy as np
import PIL.Image
import pytest

from mmembed.errors import MediaError
from mmembed.items import Video, frame_files
from mmembed.media.settings import AllFrames, FpsFrames, MediaSettings, SegmentMiddles, Stills, UniformFrames
from mmembed.media.video import is_stills, load_video

FPS = 10
NUM_FRAMES = 30
DEFAULT = MediaSettings()
ALL = MediaSettings(sampling=AllFrames())


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """30 frames at 10 a second; frame i is grey of level 8 i."""
    path = tmp_path_factory.mktemp("video") / "ramp.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"crf": "1"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(NUM_FRAMES):
            grey = np.full((48, 64, 3), 8 * number, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
        container.mux(stream.encode())
    return path


@pytest.fixture
def folder(tmp_path):
    """12 frames named frame_1 to frame_12 and a file that is none; frame i is grey of level 10 i."""
    folder = tmp_path / "frames"
    folder.mkdir()
    for number in range(1, 13):
        PIL.Image.new("RGB", (8, 8), (10 * number,) * 3).save(folder / f"frame_{number}.png")
    (folder / "notes.txt").write_text("not a frame")
    return folder


def levels(frames):
    return [round(np.asarray(picture).mean()) for picture in frames.pictures]


def test_a_clip_gives_eight_frames_by_the_published_rule(clip):
    frames = load_video(Video(clip), DEFAULT)

    assert frames.indices == (0, 4, 8, 12, 16, 20, 24, 29)
    assert levels(frames) == pytest.approx([8 * index for index in frames.indices], abs=2)
    assert {picture.mode for picture in frames.pictures} == {"RGB"}
    assert frames.fps == FPS
    assert frames.timestamps_s == pytest.approx((0, 0.4, 0.8, 1.2, 1.6, 2.0, 2.4, 2.9))


def test_the_sampling_of_the_settings_is_followed(clip):
    middles = load_video(Video(clip), MediaSettings(sampling=SegmentMiddles(3)))

    assert middles.indices == (5, 15, 25)


def test_the_clips_own_wish_goes_before_the_settings(clip):
    assert load_video(Video(clip, num_frames=2), ALL).indices == (0, 29)
    assert load_video(Video(clip, fps=2.0), DEFAULT).indices == (0, 6, 12, 17, 23, 29)


def test_the_clips_own_fps_keeps_the_bounds_of_the_settings(clip):
    bounded = MediaSettings(sampling=FpsFrames(fps=1.0, min_frames=1, max_frames=3))

    assert load_video(Video(clip, fps=5.0), bounded).indices == (0, 14, 29)


def test_a_stretch_of_time_is_sampled_by_itself_with_indices_of_the_whole_clip(clip):
    assert load_video(Video(clip, start_s=0.3, end_s=0.6), ALL).indices == (3, 4, 5, 6)
    assert load_video(Video(clip, start_s=0.35, end_s=0.39), ALL).indices == (3,)
    assert load_video(Video(clip, start_s=2.8, end_s=60.0), ALL).indices == (28, 29)
    assert load_video(Video(clip, num_frames=2, start_s=1.0, end_s=2.0), ALL).indices == (10, 20)


@pytest.mark.parametrize("start_s", [-0.5, 3.0, 99.0])
def test_a_start_outside_the_clip_is_refused_with_its_length(clip, start_s):
    with pytest.raises(MediaError, match=rf"ramp\.mp4: start_s: expected .* from 0 to 3\.000 s, got {start_s};"):
        load_video(Video(clip, start_s=start_s), DEFAULT)


def test_bytes_and_text_paths_are_clips_too(clip):
    whole = load_video(Video(clip), DEFAULT)

    for source in (str(clip), clip.read_bytes()):
        frames = load_video(Video(source), DEFAULT)

        assert frames.indices == whole.indices
        assert levels(frames) == levels(whole)


def test_a_folder_is_read_in_natural_order_as_one_frame_a_second(folder):
    frames = load_video(Video(folder), ALL)

    assert levels(frames) == [10 * number for number in range(1, 13)]
    assert frames.timestamps_s == tuple(range(12))
    assert load_video(Video(folder), DEFAULT).indices == (0, 1, 3, 4, 6, 7, 9, 11)
    assert load_video(Video(str(folder), start_s=2.0, end_s=4.0), ALL).indices == (2, 3, 4)


def test_a_list_of_frames_keeps_its_order(folder):
    sources = (folder / "frame_10.png", (folder / "frame_2.png").read_bytes(), PIL.Image.new("L", (8, 8), 7))

    assert levels(load_video(Video(sources), DEFAULT)) == [100, 20, 7]


def test_stills_may_have_a_clock_and_a_rule_of_their_own(clip, folder):
    stills = Stills(fps=2.0, sampling=UniformFrames(5), renumber=True, multiple=2)
    settings = MediaSettings(sampling=AllFrames(), stills=stills)

    frames = load_video(Video(folder), settings)

    assert levels(frames) == [10, 30, 60, 90, 120, 120]
    assert frames.timestamps_s == (0, 0.5, 1.0, 1.5, 2.0, 2.5)
    assert load_video(Video(folder, num_frames=2), settings).indices == (0, 1)
    assert load_video(Video(clip), settings).indices == tuple(range(30))


def test_stills_keep_their_numbers_unless_they_are_counted_anew(folder):
    settings = MediaSettings(stills=Stills(sampling=UniformFrames(3), multiple=2))

    assert load_video(Video(folder), settings).indices == (0, 5, 11, 12)


def test_a_list_or_folder_of_frames_is_stills(clip, folder):
    of_pictures = (Video(folder), Video(str(folder)), Video((folder / "frame_1.png",)))

    assert all(is_stills(video) for video in of_pictures)
    assert not any(is_stills(video) for video in (Video(clip), Video(clip.read_bytes())))


def test_a_missing_video_is_named_with_a_remedy(tmp_path):
    with pytest.raises(
        MediaError, match=r"gone\.mp4: expected a file, got no such file; check the path and --data-root"
    ):
        load_video(Video(tmp_path / "gone.mp4"), DEFAULT)


def test_an_empty_folder_is_named_with_a_remedy(tmp_path):
    with pytest.raises(
        MediaError, match="expected at least one frame, got 0 frames; download it again or leave the row out"
    ):
        load_video(Video(tmp_path), DEFAULT)


def test_a_broken_frame_of_a_folder_is_named(folder):
    (folder / "frame_3.png").write_bytes(b"broken")

    with pytest.raises(MediaError, match=r"frame_3\.png: expected a whole picture"):
        load_video(Video(folder), ALL)


def test_a_broken_frame_is_left_out_where_the_settings_say_so(folder, caplog):
    whole = load_video(Video(folder), ALL)
    (folder / "frame_3.png").write_bytes(b"broken")

    kept = load_video(Video(folder), replace(ALL, broken_frames="drop"))

    broken = [path.name for path in frame_files(folder)].index("frame_3.png")
    assert kept.indices == tuple(index for index in whole.indices if index != broken)
    assert [p.tobytes() for p in kept.pictures] == [whole.pictures[index].tobytes() for index in kept.indices]
    assert f"frame {broken} left out" in caplog.text
    assert "frame_3.png: expected a whole picture" in caplog.text


def test_a_clip_without_a_whole_frame_is_refused(folder):
    for path in frame_files(folder):
        path.write_bytes(b"broken")

    with pytest.raises(MediaError, match="expected a frame that decodes, got none of"):
        load_video(Video(folder), replace(ALL, broken_frames="drop"))


def test_a_file_that_is_no_video_is_named(tmp_path):
    path = tmp_path / "page.mp4"
    path.write_bytes(b"<html>404 Not Found</html>" * 20)

    with pytest.raises(MediaError, match=r"page\.mp4: expected a video that decodes, got .*; download the file again"):
        load_video(Video(path), DEFAULT)


def test_sampled_pictures_know_how_far_apart_they_are(tmp_path):
    frames = tuple(PIL.Image.new("RGB", (8, 8), (10 * i, 0, 0)) for i in range(8))

    sampled = load_video(Video(frames, num_frames=4), MediaSettings())
    stretch = load_video(Video(frames, num_frames=2, start_s=2.0, end_s=5.0), MediaSettings())

    assert (sampled.span, sampled.seconds_apart) == (8, 2.0)
    assert (stretch.span, stretch.seconds_apart) == (4, 2.0)
