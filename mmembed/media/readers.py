"""Video readers: PyAV, torchcodec and decord behind one protocol, with equal frames for H.264 and VP9.

Frames are counted in presentation order from 0, exactly. A clip's own rotation is applied, as players do. The work
counter ``frames_decoded`` holds what leaves the decoder; torchcodec and decord tell only of frames that were asked for.
"""

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import av
import numpy as np
import PIL.Image

from mmembed import counters
from mmembed.errors import MediaError
from mmembed.media.settings import Reader
from mmembed.media.timetable import counted, timetable_of


@runtime_checkable
class VideoReader(Protocol):
    """Random access to the frames of one clip."""

    @property
    def num_frames(self) -> int:
        """Frames in the clip, exactly."""
        ...

    @property
    def fps(self) -> float:
        """Frames a second, on average."""
        ...

    def frames(self, indices: Sequence[int]) -> list[PIL.Image.Image]:
        """The frames at ``indices``, as RGB pictures in that order.

        Raises:
            MediaError: one of them does not decode.
        """
        ...


class PyAVReader:
    """Reads with PyAV, whose wheel brings FFmpeg along: seeks to the keyframe before each wanted frame.

    Raises:
        MediaError: no video in the source, or it does not decode.
    """

    def __init__(self, source: Path | bytes, name: str) -> None:
        self._source, self._name = source, name
        with self._stream() as stream:
            rate = stream.average_rate or stream.guessed_rate
            timetable = timetable_of(stream)
        if not rate:
            raise _undecodable(name, "a video with a frame rate", "none")
        if timetable is None:
            with self._stream() as stream:
                timetable = counted(stream)
        self._timetable = timetable
        self.num_frames, self.fps = len(self._timetable), float(rate)

    def frames(self, indices: Sequence[int]) -> list[PIL.Image.Image]:
        """See :meth:`VideoReader.frames`."""
        pictures = self._decode(self._timetable.runs(indices))
        if missing := sorted(set(indices) - set(pictures)):
            # seeking can land after a keyframe, or on one whose first frames the decoder withholds
            pictures |= self._decode([(None, missing)])
        if missing := sorted(set(indices) - set(pictures)):
            raise _undecodable(self._name, f"{self.num_frames} frames", f"no frame {missing[0]}")
        return [pictures[index] for index in indices]

    def _decode(self, runs: Iterable[tuple[int | None, list[int]]]) -> dict[int, PIL.Image.Image]:
        pictures: dict[int, PIL.Image.Image] = {}
        with self._stream() as stream:
            for seek_to, wanted in runs:
                if seek_to is not None:
                    stream.container.seek(seek_to, stream=stream)
                pictures |= self._walk(stream, frozenset(wanted))
        return pictures

    def _walk(self, stream: Any, wanted: frozenset[int]) -> dict[int, PIL.Image.Image]:
        """The wanted frames that come by, decoding from where the stream stands to the last of them."""
        pictures: dict[int, PIL.Image.Image] = {}
        last = max(wanted)
        for position, frame in enumerate(stream.container.decode(stream)):
            counters.count("frames_decoded")
            index = self._timetable.index(frame.pts, position)
            if index in wanted:
                pictures[index] = _upright(frame)
            if index >= last:
                break
        return pictures

    @contextmanager
    def _stream(self) -> Iterator[Any]:
        with _complaints(self._name, av.error.FFmpegError), av.open(_handle(self._source)) as container:
            if not container.streams.video:
                raise _undecodable(self._name, "a video stream", "none")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            yield stream


class TorchCodecReader:
    """Reads with torchcodec, which needs FFmpeg's shared libraries where the linker finds them.

    Raises:
        MediaError: torchcodec cannot be loaded here, or the source does not decode.
    """

    def __init__(self, source: Path | bytes, name: str) -> None:
        with _complaints(name, RuntimeError, ValueError):
            self._decoder = _torchcodec_decoder(source)
        self._name, self.num_frames = name, len(self._decoder)
        self.fps = float(self._decoder.metadata.average_fps)

    def frames(self, indices: Sequence[int]) -> list[PIL.Image.Image]:
        """See :meth:`VideoReader.frames`."""
        with _complaints(self._name, RuntimeError, ValueError):
            return _told(self._decoder.get_frames_at(list(indices)).data.numpy(), indices)


class DecordReader:
    """Reads with decord: no AV1, and frames that an MP4 edit list cuts away are still counted.

    Raises:
        MediaError: decord is not installed, or the source does not decode.
    """

    def __init__(self, source: Path | bytes, name: str) -> None:
        try:
            import decord
        except ImportError as error:
            remedy = "pip install mmembed[video], or set reader: pyav"
            raise MediaError("media.reader", expected="decord installed", got=error, remedy=remedy) from error
        self._errors = (decord.DECORDError, RuntimeError)
        with _complaints(name, *self._errors):
            self._reader = decord.VideoReader(_handle(source))
        self._name, self.num_frames, self.fps = name, len(self._reader), float(self._reader.get_avg_fps())

    def frames(self, indices: Sequence[int]) -> list[PIL.Image.Image]:
        """See :meth:`VideoReader.frames`."""
        with _complaints(self._name, *self._errors):
            return _told(self._reader.get_batch(list(indices)).asnumpy(), indices)


READERS: dict[Reader, Callable[[Path | bytes, str], VideoReader]] = {
    "pyav": PyAVReader,
    "torchcodec": TorchCodecReader,
    "decord": DecordReader,
}


def _torchcodec_decoder(source: Path | bytes) -> Any:
    try:
        from torchcodec.decoders import VideoDecoder

        return VideoDecoder(source, dimension_order="NHWC", num_ffmpeg_threads=0)
    except (ImportError, RuntimeError) as error:
        # FFmpeg is looked for at the first decoder, not at the import
        if isinstance(error, ImportError) or "Could not load libtorchcodec" in str(error):
            raise MediaError(
                "media.reader",
                expected="torchcodec with FFmpeg's shared libraries",
                got=_first_line(error),
                remedy="set reader: pyav, or put FFmpeg's shared libraries on LD_LIBRARY_PATH",
            ) from error
        raise


@contextmanager
def _complaints(name: str, *errors: type[Exception]) -> Iterator[None]:
    """Turn what a library raises into a MediaError that names the clip."""
    try:
        yield
    except MediaError:
        raise
    except errors as error:
        raise _undecodable(name, "a video that decodes", _first_line(error)) from error


def _undecodable(name: str, expected: str, got: str) -> MediaError:
    remedy = "download the file again, re-encode it, or leave the row out"
    return MediaError(name, expected=expected, got=got, remedy=remedy)


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


def _handle(source: Path | bytes) -> str | io.BytesIO:
    return io.BytesIO(source) if isinstance(source, bytes) else str(source)


def _upright(frame: av.VideoFrame) -> PIL.Image.Image:
    """The frame turned as its container says; degrees count against the clock, in quarter turns."""
    # one thread: starting a pool for each frame costs more than converting it
    picture = PIL.Image.fromarray(frame.reformat(format="rgb24", threads=1).to_ndarray())
    return picture.rotate(frame.rotation, expand=True) if frame.rotation else picture


def _told(frames: Iterable[np.ndarray], indices: Sequence[int]) -> list[PIL.Image.Image]:
    """RGB pictures of uint8 ``[F, H, W, 3]``, counted once each; what was decoded between them is not told."""
    counters.count("frames_decoded", len(set(indices)))
    return [PIL.Image.fromarray(frame) for frame in frames]
