"""Pictures, clips, pages and places in pictures: what an item holds besides words. Nothing here opens a picture."""

import functools
import math
import numbers
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, Union, cast

from mmembed.errors import InputError, nearest
from mmembed.files import bytes_fingerprint, file_fingerprint, fingerprint

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image as Picture

MAX_POINTS = 100
"""Most points of one region; a person clicks a few, a table of thousands is a mask that was not drawn."""

Box: TypeAlias = tuple[float, float, float, float]
Point: TypeAlias = tuple[float, float, int]
# typing.Union because Pillow's class is named, not imported, and a name cannot stand beside |
ImageSource: TypeAlias = Union[str, Path, bytes, "Picture"]
VideoSource: TypeAlias = Union[str, Path, bytes, tuple[ImageSource, ...]]  # noqa: UP007

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"})


@dataclass(frozen=True)
class Region:
    """A place in an image, in pixels of the original picture: exactly one of box, points or mask.

    Args:
        box: ``(x0, y0, x1, y1)``, the right and bottom edges excluded.
        points: ``(x, y, label)`` with label 1 for inside and 0 for outside.
        mask: boolean array ``[H, W]`` of the picture's own size.
    """

    box: Box | None = None
    points: tuple[Point, ...] = ()
    mask: "np.ndarray | None" = None

    def __post_init__(self) -> None:
        given = [name for name in ("box", "points", "mask") if self._has(name)]
        if len(given) != 1:
            raise InputError(
                "region",
                expected="exactly one of box, points, mask",
                got=given or "none",
                remedy="give one kind a region",
            )
        if self.box is not None:
            if len(self.box) != 4:
                raise InputError(
                    "region.box",
                    expected="4 numbers x0 y0 x1 y1",
                    got=self.box,
                    remedy="give the two corners",
                )
            _check_numbers("region.box", self.box)
            x0, y0, x1, y1 = self.box
            if not (x0 < x1 and y0 < y1):
                raise InputError("region.box", expected="x0 < x1 and y0 < y1", got=self.box, remedy="order the corners")
        if len(self.points) > MAX_POINTS:
            raise InputError(
                "region.points", expected=f"at most {MAX_POINTS} points", got=f"{len(self.points):,}",
                remedy="draw them as a mask",
            )  # fmt: skip
        for point in self.points:
            if len(point) != 3 or point[2] not in (0, 1):
                raise InputError(
                    "region.points",
                    expected="(x, y, label) with label 0 or 1",
                    got=point,
                    remedy="1 is inside, 0 outside",
                )
            _check_numbers("region.points", point)
        if self.mask is not None:
            self._check_mask(self.mask)

    def _check_mask(self, mask: "np.ndarray") -> None:
        shape = getattr(mask, "shape", None)
        if shape is None or len(shape) != 2 or mask.dtype.kind not in "bui":
            got = type(mask).__name__ if shape is None else f"{mask.dtype} of shape {shape}"
            raise InputError(
                "region.mask", expected="a boolean array [H, W] of the picture's size", got=got,
                remedy="threshold it: mask > 0.5",
            )  # fmt: skip
        if not mask.any():
            raise InputError("region.mask", expected="at least one pixel inside", got="none", remedy="leave it out")

    def _has(self, name: str) -> bool:
        value = getattr(self, name)
        return value is not None and not (name == "points" and len(value) == 0)

    @classmethod
    def of(cls, value: "Region | Mapping[str, Any]") -> "Region":
        """A Region from its dict form: ``{"box": [...]}``, ``{"points": [...]}`` or ``{"mask": array}``."""
        if isinstance(value, Region):
            return value
        if not isinstance(value, Mapping):
            raise InputError(
                "region", expected="an object with box, points or mask", got=repr(value),
                remedy="write {'box': [x0, y0, x1, y1]}",
            )  # fmt: skip
        refuse_unknown(value, {"box", "points", "mask"}, "region")
        box, points = value.get("box"), value.get("points")
        return cls(
            box=None if box is None else cast(Box, _floats("region.box", box, "4 numbers x0 y0 x1 y1")),
            points=() if points is None else tuple(map(_point, _values("region.points", points, "a list of points"))),
            mask=value.get("mask"),
        )

    def fingerprint(self) -> str:
        """Names the region's content."""
        mask = b"" if self.mask is None else repr(self.mask.shape).encode() + self.mask.astype(bool).tobytes()
        return fingerprint(repr(self.box), repr(self.points), mask)


def _values(where: str, given: Any, expected: str) -> tuple[Any, ...]:
    try:
        return tuple(given)
    except TypeError as error:
        raise InputError(where, expected=expected, got=repr(given), remedy="write [...]") from error


def _floats(where: str, given: Any, expected: str) -> tuple[float, ...]:
    values = _values(where, given, expected)
    try:
        return tuple(float(value) for value in values)
    except (TypeError, ValueError) as error:
        raise InputError(where, expected=expected, got=repr(given), remedy="write numbers, unquoted") from error


def _point(given: Any) -> Point:
    """A point; what is no point, or has another label than 0 or 1, is left to :class:`Region` to judge."""
    expected = "(x, y, label) with label 0 or 1"
    values = _values("region.points", given, expected)
    if len(values) != 3:
        return cast(Point, values)
    label = values[2]
    xy = _floats("region.points", values[:2], expected)
    return cast(Point, (*xy, int(label) if label in (0, 1) else label))


def _check_numbers(where: str, values: tuple[Any, ...]) -> None:
    if not all(isinstance(value, numbers.Real) and math.isfinite(value) for value in values):
        raise InputError(where, expected="finite numbers", got=values, remedy="give pixels of the original picture")


@dataclass(frozen=True)
class Image:
    """A still picture and the regions prompted in it."""

    source: ImageSource
    regions: tuple[Region, ...] = ()

    def fingerprint(self) -> str:
        """Names the bytes (a file's, or the pixels of an open picture) and the regions."""
        return fingerprint("image", source_fingerprint(self.source), *(r.fingerprint() for r in self.regions))


@dataclass(frozen=True)
class Video:
    """A clip: a file, a folder of frames, or the frames themselves.

    Args:
        source: path of a video file or of a folder of frames (natural order), bytes of a file, or a tuple of frames.
        num_frames: how many frames to take; None leaves it to the sampler of the model's settings.
        fps: frames a second to take instead of a fixed count.
        start_s: first moment used, in seconds.
        end_s: last moment used, in seconds; None is the end.
    """

    source: VideoSource
    num_frames: int | None = None
    fps: float | None = None
    start_s: float = 0.0
    end_s: float | None = None

    def __post_init__(self) -> None:
        if self.num_frames is not None and self.num_frames < 1:
            raise InputError(
                "video.num_frames",
                expected="at least 1",
                got=self.num_frames,
                remedy="leave it out for the default",
            )
        if self.num_frames is not None and self.fps is not None:
            raise InputError(
                "video",
                expected="num_frames or fps",
                got=f"num_frames {self.num_frames} and fps {self.fps}",
                remedy="drop one",
            )
        if self.end_s is not None and self.end_s <= self.start_s:
            raise InputError(
                "video.end_s",
                expected=f"more than start_s {self.start_s}",
                got=self.end_s,
                remedy="order the two",
            )

    def fingerprint(self) -> str:
        """Names the bytes and which of the frames are asked for."""
        asked = repr((self.num_frames, self.fps, self.start_s, self.end_s))
        return fingerprint("video", source_fingerprint(self.source), asked)


@dataclass(frozen=True)
class Page:
    """One page of a PDF, pages counted from 1.

    Args:
        source: path or bytes of the PDF.
        page: number of the page, the first is 1.
        dpi: resolution it is drawn at.
    """

    source: str | Path | bytes
    page: int = 1
    dpi: int = 144

    def __post_init__(self) -> None:
        if self.page < 1:
            raise InputError("page.page", expected="1 or more", got=self.page, remedy="pages are counted from 1")

    def fingerprint(self) -> str:
        """Names the document's bytes, the page and its resolution."""
        return fingerprint("page", source_fingerprint(self.source), repr((self.page, self.dpi)))


Media: TypeAlias = Image | Video | Page


def source_fingerprint(source: "ImageSource | VideoSource") -> str:
    """Names the bytes behind a source: of a file, of every frame of a folder, or of an open picture's pixels."""
    if isinstance(source, bytes):
        return bytes_fingerprint(source)
    if isinstance(source, tuple):
        return fingerprint(*(source_fingerprint(frame) for frame in source))
    if isinstance(source, str | Path):
        path = Path(source)
        try:
            if path.is_dir():
                return fingerprint(*(source_fingerprint(frame) for frame in frame_files(path)))
            stat = path.stat()
        except OSError as error:
            raise InputError(
                path, expected="a readable file", got=error.strerror, remedy="check the path and --data-root"
            ) from error
        return _known_file(str(path), stat.st_mtime_ns, stat.st_size)
    # the bytes of a palette picture are numbers of colours; what else is read of an open picture stands in its info
    palette = bytes(source.getpalette() or ()) if source.mode in ("P", "PA") else b""
    info = repr([source.info.get(name) for name in ("transparency", "exif")])
    return fingerprint(source.mode, repr(source.size), source.tobytes(), palette, info)


@functools.lru_cache(maxsize=1 << 20)
def _known_file(path: str, mtime_ns: int, size: int) -> str:
    return file_fingerprint(path)


def frame_files(folder: Path) -> list[Path]:
    """The pictures of a folder of frames, in natural order."""
    return sorted(
        (f for f in folder.iterdir() if f.suffix.lower() in IMAGE_SUFFIXES), key=lambda f: natural_key(f.name)
    )


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sort key that reads digits as numbers and ignores case: ``frame_2`` before ``frame_10``."""
    return [
        (0, int(piece), "") if piece.isdigit() else (1, 0, piece) for piece in re.split(r"(\d+)", name.lower()) if piece
    ]


def refuse_unknown(value: Mapping[str, Any], known: set[str], where: str) -> None:
    """Refuse a key that is not known; the nearest known one is named."""
    for key in value:
        if key not in known:
            raise InputError(
                f"{where}.{key}", expected="a known field", got=f"'{key}'", remedy=nearest(str(key), known)
            )
