"""Regions against the picture they belong to: the check, clipping and rescaling of their coordinates."""

from collections.abc import Iterator

from mmembed.errors import InputError
from mmembed.items import Box, Image, Region
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
