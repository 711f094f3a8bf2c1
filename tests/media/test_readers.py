import struct
import sys
from pathlib import Path

import av
import numpy as np
import pytest

from mmembed.counters import counting
from mmembed.errors import MediaError
from mmembed.media.readers import READERS, PyAVReader
from mmembed.media.settings import UniformFrames

FPS = 10
NUM_FRAMES = 20


def write_clip(path, codec="libx264", num_frames=NUM_FRAMES, **options):
    """A drifting checkerboard of random colours, so that every frame differs; a keyframe every 8 frames by default."""
    board = np.random.default_rng(0).integers(0, 256, (8, 12, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=FPS, options={"g": "8", **options})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for number in range(num_frames):
            frame = av.VideoFrame.from_ndarray(np.roll(board, 5 * number, axis=1), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def remuxed(source, target, earlier_frames):
    """The clip moved ``earlier_frames`` before its start: an MP4 edit list cuts those frames away."""
    with av.open(str(source)) as clip, av.open(str(target), "w") as container:
        stream = clip.streams.video[0]
        copy = container.add_stream_from_template(stream)
        for packet in clip.demux(stream):
            if packet.size:
                offset = int(earlier_frames / FPS / stream.time_base)
                packet.pts, packet.dts, packet.stream = packet.pts - offset, packet.dts - offset, copy
                container.mux(packet)
    return target


def sequential(path):
    """All frames in the order a plain decoder gives them: the slow obvious twin of every reader."""
    with av.open(str(path)) as container:
        return [np.asarray(frame.to_image()) for frame in container.decode(video=0)]


def open_reader(kind, source, name="clip"):
    """The reader, or a skip where its library cannot be loaded on this machine."""
    try:
        return READERS[kind](source, name)
    except MediaError as error:
        if error.where == "media.reader":
            pytest.skip(str(error))
        raise


def equal(pictures, arrays):
    return [np.array_equal(np.asarray(picture), array) for picture, array in zip(pictures, arrays, strict=True)]


CLIPS = {
    "h264.mp4": ("libx264", {"bf": "2"}),
    "vp9.webm": ("libvpx-vp9", {}),
    "keyframe_every_second.mp4": ("libx264", {"g": "2", "bf": "1"}),
    "open_gop.mp4": ("libx264", {"x264-params": "open-gop=1:keyint=8:bframes=3"}),
    "intra_refresh.mp4": ("libx264", {"x264-params": "intra-refresh=1:keyint=8:bframes=0"}),
    "vp8.webm": ("libvpx", {}),
    "mpeg4.avi": ("mpeg4", {"bf": "2"}),
    "no_times.h264": ("libx264", {"bf": "2"}),
}


@pytest.fixture(scope="module", params=CLIPS)
def any_clip(request, tmp_path_factory):
    codec, options = CLIPS[request.param]
    return write_clip(tmp_path_factory.mktemp("clips") / request.param, codec, **options)


@pytest.fixture(scope="module")
def h264(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("clips") / "plain.mp4", bf="2")


def test_pyav_finds_every_single_frame_as_sequential_decoding_gives_it(any_clip):
    truth = sequential(any_clip)

    reader = PyAVReader(any_clip, "clip")

    assert reader.num_frames == len(truth) == NUM_FRAMES
    assert all(equal([reader.frames([index])[0] for index in range(NUM_FRAMES)], truth))
    assert all(equal(reader.frames(range(NUM_FRAMES)), truth))


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize("clip", ["h264.mp4", "vp9.webm"])
def test_all_readers_give_bit_equal_frames_for_h264_and_vp9(tmp_path, kind, clip):
    codec, options = CLIPS[clip]
    path = write_clip(tmp_path / clip, codec, **options)
    wanted = [0, 3, 8, 9, 19]

    reader = open_reader(kind, path)

    assert (reader.num_frames, reader.fps) == (NUM_FRAMES, FPS)
    assert all(equal(reader.frames(wanted), [sequential(path)[index] for index in wanted]))


@pytest.mark.parametrize("kind", READERS)
def test_frames_come_in_the_order_asked_and_may_repeat(h264, kind):
    truth = sequential(h264)
    wanted = [17, 2, 2, 9]

    assert all(equal(open_reader(kind, h264).frames(wanted), [truth[index] for index in wanted]))


def test_pyav_decodes_only_from_the_keyframe_before_each_wanted_frame(tmp_path):
    path = write_clip(tmp_path / "long.mp4", num_frames=240, g="12", sc_threshold="0")
    wanted = UniformFrames(8).indices(240, FPS)

    reader = open_reader("pyav", path)
    with counting() as counted:
        reader.frames(wanted)

    assert wanted == [0, 34, 68, 102, 136, 170, 204, 239]
    assert counted["frames_decoded"] == sum(index % 12 + 1 for index in wanted) == 49


@pytest.mark.parametrize("kind", ["torchcodec", "decord"])
def test_other_readers_count_the_frames_that_they_hand_over(h264, kind):
    reader = open_reader(kind, h264)
    with counting() as counted:
        reader.frames([17, 2, 2, 9])

    assert counted["frames_decoded"] == 3


@pytest.mark.parametrize("kind", READERS)
def test_bytes_read_like_the_file(h264, kind):
    reader = open_reader(kind, h264.read_bytes())

    assert reader.num_frames == NUM_FRAMES
    assert all(equal(reader.frames([5]), [sequential(h264)[5]]))


def test_vp9_in_webm_has_no_frame_count_in_its_header_and_is_counted(tmp_path):
    path = write_clip(tmp_path / "clip.webm", "libvpx-vp9", num_frames=7)
    with av.open(str(path)) as container:
        assert container.streams.video[0].frames == 0

    assert PyAVReader(path, "clip").num_frames == 7


@pytest.mark.parametrize("kind", ["pyav", "torchcodec"])
def test_frames_cut_away_by_an_edit_list_are_not_counted(h264, tmp_path, kind):
    cut = remuxed(h264, tmp_path / "cut.mp4", earlier_frames=5)
    truth = sequential(cut)

    reader = open_reader(kind, cut)

    assert reader.num_frames == len(truth) == NUM_FRAMES - 5
    assert all(equal(reader.frames(range(len(truth))), truth))


@pytest.mark.parametrize("kind", READERS)
def test_a_clip_filmed_sideways_is_turned_upright(h264, tmp_path, kind):
    stored, quarter_turn = (
        struct.pack(">9i", *matrix)
        for matrix in (
            (1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30),
            (0, 1 << 16, 0, -1 << 16, 0, 0, 64 << 16, 0, 1 << 30),
        )
    )
    before, track, after = h264.read_bytes().partition(b"tkhd")
    sideways = before + track + after.replace(stored, quarter_turn, 1)
    upright = [np.rot90(frame, k=-1) for frame in sequential(h264)[:2]]

    assert all(equal(open_reader(kind, sideways).frames([0, 1]), upright))


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize("content", [b"", b"this is no video " * 50])
def test_bytes_that_are_no_video_are_refused_by_name(h264, kind, content):
    open_reader(kind, h264)

    with pytest.raises(MediaError, match=r"rows/7: expected a video that decodes, got .*; download the file again"):
        READERS[kind](content, "rows/7")


@pytest.mark.parametrize("kind", READERS)
def test_a_clip_without_frames_is_refused_by_name(h264, tmp_path, kind):
    open_reader(kind, h264)
    empty = write_clip(tmp_path / "empty.mp4", num_frames=0)

    with pytest.raises(MediaError, match=r"empty: expected .*; download the file again, re-encode it"):
        READERS[kind](empty, "empty")


@pytest.mark.parametrize("kind", READERS)
def test_a_truncated_mp4_is_refused_by_name(h264, tmp_path, kind):
    open_reader(kind, h264)
    half = tmp_path / "half.mp4"
    half.write_bytes(h264.read_bytes()[: h264.stat().st_size // 2])

    with pytest.raises(MediaError, match="half: expected a video that decodes"):
        READERS[kind](half, "half")


@pytest.mark.parametrize("kind", READERS)
def test_damaged_frames_are_refused_when_they_are_asked_for(h264, kind):
    open_reader(kind, h264)
    content = bytearray(h264.read_bytes())
    start = content.find(b"mdat") + 3000
    content[start : start + 200] = np.random.default_rng(0).bytes(200)

    with pytest.raises(MediaError, match=r"damaged: expected .*, got .*; download the file again"):
        READERS[kind](bytes(content), "damaged").frames(range(NUM_FRAMES))


def test_sound_without_pictures_is_refused(tmp_path):
    path = tmp_path / "sound.wav"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.ones((1, 800), dtype=np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))

    with pytest.raises(MediaError, match="sound: expected a video stream, got none"):
        PyAVReader(path, "sound")


def test_a_reader_that_is_not_installed_is_named_with_its_remedy(monkeypatch, h264):
    for module in ("decord", "torchcodec.decoders"):
        monkeypatch.setitem(sys.modules, module, None)

    with pytest.raises(
        MediaError, match=r"media\.reader: expected decord installed, got .*; pip install mmembed\[video\]"
    ):
        READERS["decord"](h264, "clip")
    with pytest.raises(MediaError, match=r"media\.reader: expected torchcodec .*, got .*; set reader: pyav"):
        READERS["torchcodec"](h264, "clip")


def test_torchcodec_without_ffmpeg_says_what_to_do(monkeypatch, h264):
    decoders = pytest.importorskip("torchcodec.decoders")

    def unloadable(*args, **kwargs):
        raise RuntimeError("Could not load libtorchcodec. Likely causes:\n 1. FFmpeg is not properly installed")

    monkeypatch.setattr(decoders, "VideoDecoder", unloadable)

    with pytest.raises(
        MediaError, match=r"got RuntimeError: Could not load libtorchcodec.*; set reader: pyav, or put FFmpeg"
    ):
        READERS["torchcodec"](Path(h264), "clip")
