"""Settings of decoding: which frames of a clip are taken, and what a picture may be.

The uniform rule is the one of VLM2Vec-V2 (arXiv:2507.04590); the frame-rate rule is the one of the Qwen3-VL processor.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar, Literal, get_args

from mmembed.errors import InputError, nearest
from mmembed.settings import Part

Alpha = Literal["drop", "white"]
Reader = Literal["pyav", "torchcodec", "decord"]
BrokenFrames = Literal["refuse", "drop"]

PILLOW_LIMIT_MEGAPIXELS = 179.0
"""Pillow itself refuses pictures beyond 2 x 89,478,485 pixels."""


def _linspace(total: int, count: int) -> list[float]:
    """``numpy.linspace(0, total - 1, count)``, the same float operations in the same order."""
    if count == 1:
        return [0.0]
    step = (total - 1) / (count - 1)
    # the last position is exact where i * step may fall a hair below it
    return [i * step for i in range(count - 1)] + [float(total - 1)]


def _refuse_below(least: int, value: int, where: str) -> None:
    if value < least:
        raise InputError(where, expected=f"at least {least}", got=value, remedy="leave it out for the default")


@dataclass(frozen=True)
class FrameSampling(Part, ABC):
    """A rule that picks frames of a clip: a pure function of its length and frame rate."""

    abstract: ClassVar[bool] = True

    @abstractmethod
    def indices(self, total: int, fps: float) -> list[int]:
        """The frames to take.

        Args:
            total: frames the clip has, at least 1.
            fps: frames a second of the clip.

        Returns:
            Ascending, distinct indices in ``range(total)``, at least one.
        """


@dataclass(frozen=True)
class UniformFrames(FrameSampling):
    """Evenly spread frames, first and last included: ``linspace(0, total - 1, n)`` cut to integers (VLM2Vec-V2).

    A clip shorter than ``num_frames`` gives all its frames; none is repeated.
    """

    num_frames: int = 8
    """frames taken from a clip that has as many"""

    def __post_init__(self) -> None:
        _refuse_below(1, self.num_frames, "media.sampling.num_frames")

    def indices(self, total: int, fps: float) -> list[int]:
        """See :meth:`FrameSampling.indices`."""
        return [math.floor(position) for position in _linspace(total, min(self.num_frames, total))]


@dataclass(frozen=True)
class FpsFrames(FrameSampling):
    """A count that grows with the clip's duration, spread evenly and rounded to the nearest frame (Qwen3-VL).

    The count is ``duration x fps``, kept within the bounds, and never more than the clip has.
    """

    fps: float = 2.0
    """frames taken from each second"""
    min_frames: int = 4
    """fewest frames taken, where the clip has as many"""
    max_frames: int = 64
    """most frames taken"""
    multiple: int = 1
    """the count is cut to a multiple of this, where the clip has as many: 2 is the rule of ``qwen-vl-utils``"""

    def __post_init__(self) -> None:
        if not 0 < self.fps < math.inf:
            raise InputError("media.sampling.fps", expected="more than 0", got=self.fps, remedy="2.0 is usual")
        _refuse_below(1, self.min_frames, "media.sampling.min_frames")
        _refuse_below(self.min_frames, self.max_frames, "media.sampling.max_frames")
        _refuse_below(1, self.multiple, "media.sampling.multiple")

    def indices(self, total: int, fps: float) -> list[int]:
        """See :meth:`FrameSampling.indices`."""
        wanted = int(total / fps * self.fps)
        count = min(max(wanted, self.min_frames), self.max_frames, total)
        count = count - count % self.multiple or count
        return [round(position) for position in _linspace(total, count)]


@dataclass(frozen=True)
class SegmentMiddles(FrameSampling):
    """The middle frame of each of ``num_frames`` equal segments (TSN, arXiv:1608.00859; InternVideo).

    A clip shorter than ``num_frames`` gives all its frames; none is repeated.
    """

    num_frames: int = 8
    """segments a clip is cut into"""

    def __post_init__(self) -> None:
        _refuse_below(1, self.num_frames, "media.sampling.num_frames")

    def indices(self, total: int, fps: float) -> list[int]:
        """See :meth:`FrameSampling.indices`."""
        count = min(self.num_frames, total)
        return [(2 * segment + 1) * total // (2 * count) for segment in range(count)]


@dataclass(frozen=True)
class AllFrames(FrameSampling):
    """Every frame, for clips and folders that were thinned out beforehand."""

    def indices(self, total: int, fps: float) -> list[int]:
        """See :meth:`FrameSampling.indices`."""
        return list(range(total))


@dataclass(frozen=True)
class Stills:
    """What a clip counts as that is a folder or list of frames, which carry no clock."""

    fps: float = 1.0
    """frames a second"""
    sampling: FrameSampling | None = None
    """which of the frames are taken where the clip itself does not say; None is the rule of all clips"""
    renumber: bool = False
    """count those that are taken anew before their seconds are told, as code does that takes them first
    (Qwen3-VL-Embedding)"""
    multiple: int = 1
    """the last frame is shown again, each time a frame later, until there are a multiple of so many (qwen-vl-utils)"""

    def __post_init__(self) -> None:
        if not 0 < self.fps < math.inf:
            raise InputError("media.stills.fps", expected="more than 0", got=self.fps, remedy="1.0 is usual")
        _refuse_below(1, self.multiple, "media.stills.multiple")


@dataclass(frozen=True)
class MediaSettings:
    """How pictures, clips and pages become RGB pictures; part of what an embedding depends on."""

    exif: bool = False
    """turn pictures as their EXIF orientation says; the published protocols do not"""
    alpha: Alpha = "drop"
    """what becomes of transparency: ``drop`` is Pillow's ``convert("RGB")``, ``white`` lays the picture on white"""
    max_image_megapixels: float = PILLOW_LIMIT_MEGAPIXELS
    """pictures and drawn pages with more millions of pixels are refused before they are decoded"""
    draft_pixels: int | None = None
    """a JPEG is decoded at a half, a quarter or an eighth of its sides where so many pixels are left, twice as fast or
    more; not exact. Three times the model's ``max_pixels`` keeps the drift small; None decodes whole pictures"""
    reader: Reader = "pyav"
    """library that decodes video; the three give equal frames for H.264 and VP9"""
    sampling: FrameSampling = UniformFrames()
    """which frames of a clip are taken where the clip itself does not say"""
    stills: Stills = field(default_factory=Stills)
    """what a folder or list of frames counts as"""
    broken_frames: BrokenFrames = "refuse"
    """what becomes of a frame of a folder or list that does not decode: ``refuse`` the clip, or ``drop`` the frame from
    those that were taken and log it, as the published evaluation of VLM2Vec does"""
    square: int | None = None
    """resize every picture, page and frame to a square of so many pixels a side before anything else: 1344, 672 or 128
    are VLM2Vec's ``image_resolution`` high, mid and low (arXiv:2410.05160), by which its first checkpoints were made"""

    def __post_init__(self) -> None:
        choices = {"alpha": Alpha, "reader": Reader, "broken_frames": BrokenFrames}
        for name, known in ((name, get_args(choice)) for name, choice in choices.items()):
            value = getattr(self, name)
            if value not in known:
                where, expected = f"media.{name}", "one of " + ", ".join(known)
                raise InputError(where, expected=expected, got=f"'{value}'", remedy=nearest(str(value), known))
        if self.draft_pixels is not None:
            _refuse_below(1, self.draft_pixels, "media.draft_pixels")
        if self.square is not None:
            _refuse_below(1, self.square, "media.square")
        if not 0 < self.max_image_megapixels <= PILLOW_LIMIT_MEGAPIXELS:
            raise InputError(
                "media.max_image_megapixels",
                expected=f"more than 0 and at most {PILLOW_LIMIT_MEGAPIXELS:g}, Pillow's own limit",
                got=self.max_image_megapixels,
                remedy="shrink larger pictures beforehand",
            )
