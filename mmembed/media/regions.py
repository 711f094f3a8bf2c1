"""Regions against the picture they belong to: the check, clipping and rescaling of their coordinates."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import PIL.Image

from mmembed.errors import InputError
from mmembed.items import Box, Image, Item, Region
from mmembed.media.sources import source_name

SLACK_PX = 1.0
"""How far a coordinate may leave its picture: annotators round, and count edges from 0 or from 1."""


def check_regions(image: Image, width: int, height: int) -> None:
    """Refuse regions that do not lie in their picture.

    Args:
        image: the picture's item, for its regions and its name.
        width: pixels of the opened picture, left to right.
        height: pixels of the opened picture, top to bottom.

    Raises:
        InputError: a box or point leaves the picture by more than a pixel, a box lies beside it, or a mask has another
            size.
    """
    size = f"{width} x {height}"
    for number, region in enumerate(image.regions):
        for field, value, expected in _faults(region, width, height):
            raise InputError(
                f"{source_name(image.source)}: regions[{number}].{field}",
                expected=f"{expected} of {size} pixels",
                got=value,
                remedy="give pixels of the original picture, x before y",
            )


def without_regions(item: Item) -> Item:
    """The item with its pictures as a whole."""
    parts = (replace(part, regions=()) if isinstance(part, Image) else part for part in item.content)
    return replace(item, content=tuple(parts))


def clip_box(box: Box, width: int, height: int) -> Box:
    """The part of ``box`` inside a picture of ``width`` x ``height`` pixels."""
    x0, y0, x1, y1 = box
    return (_clip(x0, width), _clip(y0, height), _clip(x1, width), _clip(y1, height))


def scale_box(box: Box, from_size: tuple[int, int], to_size: tuple[int, int]) -> Box:
    """``box`` in a resized picture.

    Args:
        box: pixels of the picture before resizing.
        from_size: ``(width, height)`` before.
        to_size: ``(width, height)`` after.
    """
    x_ratio, y_ratio = to_size[0] / from_size[0], to_size[1] / from_size[1]
    x0, y0, x1, y1 = box
    return (x0 * x_ratio, y0 * y_ratio, x1 * x_ratio, y1 * y_ratio)


def scale_regions(image: Image, from_size: tuple[int, int], to_size: tuple[int, int]) -> Image:
    """The image with its regions where they are in the resized picture; what left the picture by the slack is cut.

    Args:
        image: with regions in pixels of the picture before resizing.
        from_size: ``(width, height)`` before.
        to_size: ``(width, height)`` after.
    """
    if from_size == to_size or not image.regions:
        return image
    return replace(image, regions=tuple(_scaled(region, from_size, to_size) for region in image.regions))


def pixels_of(box: Box, width: int, height: int) -> tuple[int, int, int, int]:
    """First column and row, last column and row that a box covers of a picture; always one pixel of it, at least.

    Args:
        box: in shares of the picture's sides; it may leave the picture.
        width: of the picture in pixels.
        height: of the picture in pixels.
    """
    x0, y0, x1, y1 = box
    left, top = (min(max(round(x), 0), side - 1) for x, side in ((x0 * width, width), (y0 * height, height)))
    right, bottom = (min(round(x), side) - 1 for x, side in ((x1 * width, width), (y1 * height, height)))
    return (left, top, max(right, left), max(bottom, top))


def eroded(mask: np.ndarray, depth: int) -> np.ndarray:
    """What of a mask ``[H, W]`` is further than ``depth`` pixels from its edge, as a king walks; beyond it is outside.

    Args:
        mask: of booleans.
        depth: in pixels; 0 takes nothing away.
    """
    window = 2 * depth + 1
    for axis in (0, 1):
        width = [(0, 0), (0, 0)]
        width[axis] = (depth + 1, depth)
        sums = np.pad(mask, width).cumsum(axis, dtype=np.int32)
        ends = sums.shape[axis]
        behind = sums.take(range(window, ends), axis) - sums.take(range(ends - window), axis)
        mask = behind == window
    return mask


def _scaled(region: Region, from_size: tuple[int, int], to_size: tuple[int, int]) -> Region:
    (width, height), (x_ratio, y_ratio) = from_size, (b / a for a, b in zip(from_size, to_size, strict=True))
    if region.box is not None:
        return Region(box=scale_box(clip_box(region.box, width, height), from_size, to_size))
    if region.mask is None:
        points = ((_clip(x, width) * x_ratio, _clip(y, height) * y_ratio, label) for x, y, label in region.points)
        return Region(points=tuple(points))
    inside = PIL.Image.fromarray(region.mask.astype(bool).astype(np.float32))
    covered = np.asarray(inside.resize(to_size, PIL.Image.Resampling.BOX))
    # half of a pixel, or what there is of a mask that became smaller than one
    return Region(mask=covered >= min(0.5, covered.max()))


def _faults(region: Region, width: int, height: int) -> Iterator[tuple[str, object, str]]:
    """Field, value and expectation of everything wrong with a region."""
    if region.box is not None and not _box_inside(region.box, width, height):
        yield "box", region.box, "a box inside the picture"
    for point in region.points:
        if not (_inside(point[0], width) and _inside(point[1], height)):
            yield "points", point, "a point inside the picture"
    if region.mask is not None and region.mask.shape != (height, width):
        got = f"a mask of shape {region.mask.shape}, height before width"
        yield "mask", got, "a mask as large as the picture"


def _box_inside(box: Box, width: int, height: int) -> bool:
    x0, y0, x1, y1 = clip_box(box, width, height)
    fits = _inside(box[0], width) and _inside(box[2], width) and _inside(box[1], height) and _inside(box[3], height)
    return fits and x0 < x1 and y0 < y1


def _inside(value: float, length: int) -> bool:
    return -SLACK_PX <= value <= length + SLACK_PX


def _clip(value: float, length: int) -> float:
    return min(max(value, 0.0), float(length))
