"""Clips to RGB frames: video files, folders of frames and lists of frames, sampled by one rule."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import PIL.Image

from mmembed.errors import MediaError
from mmembed.items import Image, ImageSource, Video, frame_files
from mmembed.media.images import open_image
from mmembed.media.readers import READERS, VideoReader
from mmembed.media.settings import FpsFrames, FrameSampling, MediaSettings, Stills, UniformFrames
from mmembed.media.sources import existing_file, source_name

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Frames:
    """What decoding gives: the pictures, and where in their clip they stand.

    Args:
        pictures: RGB, in order of time.
        indices: number of each picture in the whole clip, from 0.
        fps: frames a second of the clip; 0 for a still picture or page.
        span: frames of the stretch that the pictures were sampled from.
        original_size: width and height of the pictures as stored; None where they were neither decoded smaller nor
            made squares.
    """

    pictures: tuple[PIL.Image.Image, ...]
    indices: tuple[int, ...]
    fps: float
    span: int = 1
    original_size: tuple[int, int] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Width and height that coordinates in the first picture are relative to."""
        return self.original_size or self.pictures[0].size

    @property
    def seconds_apart(self) -> float:
        """Mean distance of the pictures if they cover the whole stretch evenly; 0 for a still."""
        return self.span / self.fps / len(self.pictures) if self.fps else 0.0

    @property
    def timestamps_s(self) -> tuple[float, ...]:
        """Seconds from the clip's start, by the average frame rate; 0 for a still."""
        return tuple(index / self.fps if self.fps else 0.0 for index in self.indices)


class StillsReader:
    """A clip given as pictures, each decoded when asked for."""

    def __init__(self, pictures: Sequence[ImageSource], settings: MediaSettings) -> None:
        self._pictures, self._settings = pictures, settings
        self.fps = settings.stills.fps
        self.num_frames = len(pictures)

    def frames(self, indices: Sequence[int]) -> list[PIL.Image.Image]:
        """See :meth:`mmembed.media.readers.VideoReader.frames`."""
        return [open_image(Image(self._pictures[index]), self._settings) for index in indices]


def load_video(video: Video, settings: MediaSettings) -> Frames:
    """Sample and decode a clip.

    The clip's own ``num_frames`` (uniform) or ``fps`` goes before ``settings.sampling``. Only frames on screen between
    ``start_s`` and ``end_s`` are sampled; an end after the clip's is the clip's. A folder (natural order) or list of
    frames counts as ``settings.stills`` says.

    Raises:
        MediaError: the source is missing, empty or does not decode, or ``start_s`` lies outside the clip.
    """
    name = source_name(video.source)
    reader = _reader(video, settings, name)
    if reader.num_frames < 1:
        remedy = "download it again or leave the row out"
        raise MediaError(name, expected="at least one frame", got="0 frames", remedy=remedy)
    shown = _shown(video, reader, name)
    picked = _sampling(video, settings, isinstance(reader, StillsReader)).indices(len(shown), reader.fps)
    indices = [shown[position] for position in picked]
    if settings.broken_frames == "drop" and isinstance(reader, StillsReader):
        pictures = _decodable(reader, indices, name)
    else:
        pictures = dict(zip(indices, reader.frames(indices), strict=True))
    frames = Frames(tuple(pictures.values()), tuple(pictures), reader.fps, len(shown))
    return _counted(frames, settings.stills) if isinstance(reader, StillsReader) else frames


def _counted(frames: Frames, stills: Stills) -> Frames:
    """Frames of a folder or list with the numbers that they are to have, the last as often as it is to be shown."""
    pictures = frames.pictures
    numbers = tuple(range(len(pictures))) if stills.renumber else frames.indices
    again = range(1, -len(pictures) % stills.multiple + 1)
    pictures += tuple(pictures[-1] for _ in again)
    return replace(frames, pictures=pictures, indices=(*numbers, *(numbers[-1] + later for later in again)))


def is_stills(video: Video) -> bool:
    """Whether a clip is given as pictures, a list or a folder of them."""
    source = video.source
    return isinstance(source, tuple) or (not isinstance(source, bytes) and Path(source).is_dir())


def _decodable(reader: StillsReader, indices: Sequence[int], name: str) -> dict[int, PIL.Image.Image]:
    """The pictures at ``indices`` that decode, by index; the others are logged."""
    pictures = {}
    for index in indices:
        try:
            (pictures[index],) = reader.frames([index])
        except MediaError as error:
            logger.warning("%s: frame %d left out: %s", name, index, error)
    if not pictures:
        remedy = "download it again or leave the row out"
        raise MediaError(name, expected="a frame that decodes", got=f"none of {len(indices)}", remedy=remedy)
    return pictures


def _reader(video: Video, settings: MediaSettings, name: str) -> VideoReader:
    source = video.source
    if isinstance(source, tuple):
        return StillsReader(source, settings)
    if isinstance(source, bytes):
        return READERS[settings.reader](source, name)
    if Path(source).is_dir():
        return StillsReader(frame_files(Path(source)), settings)
    return READERS[settings.reader](existing_file(source), name)


def _sampling(video: Video, settings: MediaSettings, of_stills: bool) -> FrameSampling:
    """The clip's own wish, else the settings' rule."""
    if video.num_frames is not None:
        return UniformFrames(video.num_frames)
    if video.fps is None:
        return (settings.stills.sampling if of_stills else None) or settings.sampling
    bounds = settings.sampling if isinstance(settings.sampling, FpsFrames) else FpsFrames()
    return replace(bounds, fps=video.fps)


def _shown(video: Video, reader: VideoReader, name: str) -> range:
    """The frames on screen from ``start_s`` to ``end_s``: frame ``i`` from ``i / fps`` until the next one."""
    first = _frame_at(video.start_s, reader.fps)
    if not 0 <= first < reader.num_frames:
        raise MediaError(
            f"{name}: start_s",
            expected=f"a moment of the clip, from 0 to {reader.num_frames / reader.fps:.3f} s",
            got=video.start_s,
            remedy="correct the row's times",
        )
    last = reader.num_frames - 1 if video.end_s is None else _frame_at(video.end_s, reader.fps)
    return range(first, min(last, reader.num_frames - 1) + 1)


def _frame_at(moment_s: float, fps: float) -> int:
    # 0.3 s x 30 fps is 8.999... in floats, and means frame 9
    return math.floor(moment_s * fps + 1e-6)
