"""Queries whose regions are shown in another form: told in words, cut out of their picture, or moved in it.

Coordinates are pixels of the original picture, as everywhere in items.
"""

import io
import math
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, TypeAlias

import numpy as np

from mmembed.errors import InputError
from mmembed.items import Box, Image, Item, Part, Region
from mmembed.media.images import open_image, picture_size
from mmembed.media.regions import clip_box, without_regions
from mmembed.media.settings import MediaSettings
from mmembed.models.settings import Crop

RegionForm: TypeAlias = Literal["region", "words", "both", "crop"]
Size: TypeAlias = tuple[int, int]
"""Width and height in pixels."""

REGION_WORDS = "\nReferring object bbox: ({x0:.0f}, {y0:.0f}, {x1:.0f}, {y1:.0f})"
"""How the demo of VIRTUE (arXiv:2510.00523) tells a box in words: a line of its own, and whole pixels."""
NEAR = 0.5
"""Regions that share more than this, intersection over union, count as nearly the same place."""


def check_region_words(words: str) -> None:
    """Refuse words that do not tell a box.

    Raises:
        InputError: a slot that is none of the four, or one that is missing.
    """
    slots = ("x0", "y0", "x1", "y1")
    try:
        told = {words.format(**dict.fromkeys(slots, 0.0) | {slot: 1.0}) for slot in slots}
    except (LookupError, ValueError, AttributeError) as error:
        raise _bad_words(words) from error
    # a slot that is missing leaves the words as they are without it
    if len(told) < len(slots) or words.format(**dict.fromkeys(slots, 0.0)) in told:
        raise _bad_words(words)


def in_form(item: Item, form: RegionForm, words: str, media: MediaSettings) -> Item:
    """The item with its regions in a form; an item without regions stays as it is.

    Args:
        item: what to show.
        form: ``region`` as they are, ``words`` told only, ``both`` told besides, ``crop`` the pictures cut to them.
        words: tell a box, with ``{x0}``, ``{y0}``, ``{x1}`` and ``{y1}`` for its corners.
        media: how pictures are decoded.

    Raises:
        InputError: an item whose layout has no place for a text.
    """
    if form == "words":
        return without_regions(in_words(item, words, media))
    if form == "both":
        return in_words(item, words, media)
    return cropped(item, media) if form == "crop" else item


def in_words(item: Item, words: str, media: MediaSettings) -> Item:
    """The item with words behind it that tell the box around each region."""
    boxes = [_told(region, part, media) for part, region in _regions(item)]
    told = "".join(words.format(x0=x0, y0=y0, x1=x1, y1=y1) for x0, y0, x1, y1 in boxes)
    return replace(item, content=(*item.content, told)) if told else item


def cropped(item: Item, media: MediaSettings) -> Item:
    """The item with its pictures cut to their one region, by the rule of :class:`mmembed.models.settings.Crop`.

    Raises:
        InputError: several regions of a picture, or a point outside.
    """
    return replace(item, content=tuple(_cut(part, media) for part in item.content))


def moved(image: Image, seed: str, media: MediaSettings) -> Image:
    """The picture with each region elsewhere in it, as large as before and apart from where it was if there is room.

    Args:
        image: with its regions.
        seed: draws where to.
        media: how pictures are decoded.
    """
    size = picture_size(image, media)
    draws = random.Random(seed)
    return replace(image, regions=tuple(_moved(region, size, draws) for region in image.regions))


def bounds(region: Region, size: Size) -> Box:
    """The smallest box around a region of a picture of ``size``, in pixels; of points, around those inside."""
    if region.box is not None:
        return clip_box(region.box, *size)
    if region.mask is not None:
        rows, columns = (np.flatnonzero(region.mask.any(axis)) for axis in (1, 0))
        return (float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))
    inside = [point for point in region.points if point[2]] or region.points
    xs, ys, _ = zip(*inside, strict=True)
    return clip_box((min(xs), min(ys), max(xs), max(ys)), *size)


def apart(some: Sequence[Region], others: Sequence[Region], size: Size) -> bool:
    """Whether no two regions of a picture of ``size``, one of each list, are nearly the same place."""
    return all(_overlap(bounds(one, size), bounds(other, size)) <= NEAR for one in some for other in others)


def _regions(item: Item) -> list[tuple[Image, Region]]:
    return [(part, region) for part in item.content if isinstance(part, Image) for region in part.regions]


def _told(region: Region, image: Image, media: MediaSettings) -> Box:
    """The box as it was given, which the published strings print digit by digit; else the one around the region."""
    return region.box if region.box is not None else bounds(region, picture_size(image, media))


def _cut(part: Part, media: MediaSettings) -> Part:
    if not isinstance(part, Image) or not part.regions:
        return part
    # torch comes with it, and rows are read without
    from mmembed.models.region_encoders.crop import CropPreparer

    file = io.BytesIO()
    CropPreparer(Crop()).redraw(part, open_image(part, media)).save(file, "PNG")
    return Image(file.getvalue())


def _moved(region: Region, size: Size, draws: random.Random) -> Region:
    # points outside stay in the picture too
    whole = replace(region, points=tuple((x, y, 1) for x, y, _ in region.points))
    box = bounds(whole, size)
    x, y = _place(box, size, draws)
    width, height = box[2] - box[0], box[3] - box[1]
    if region.box is not None:
        return Region(box=(x, y, x + width, y + height))
    if region.mask is None:
        dx, dy = x - box[0], y - box[1]
        return Region(points=tuple((px + dx, py + dy, label) for px, py, label in region.points))
    x0, y0, x1, y1 = map(int, box)
    mask = np.zeros_like(region.mask, dtype=bool)
    mask[int(y) : int(y + height), int(x) : int(x + width)] = region.mask[y0:y1, x0:x1]
    return Region(mask=mask)


def _place(box: Box, size: Size, draws: random.Random) -> tuple[float, float]:
    """Where the top left corner of a box goes: whole pixels beside, above or below it; else a corner far from it."""
    x0, y0, x1, y1 = box
    right, bottom = max(0.0, size[0] - (x1 - x0)), max(0.0, size[1] - (y1 - y0))
    # a point is less than a pixel, and would have room where it is
    x_step, y_step = max(x1 - x0, 1.0), max(y1 - y0, 1.0)
    strips = [
        (0.0, x0 - x_step, 0.0, bottom), (x0 + x_step, right, 0.0, bottom),
        (0.0, right, 0.0, y0 - y_step), (0.0, right, y0 + y_step, bottom),
    ]  # fmt: skip
    whole = [(math.ceil(a), math.floor(b), math.ceil(c), math.floor(d)) for a, b, c, d in strips]
    room = [(a, b, c, d) for a, b, c, d in whole if a <= b and c <= d]
    if room:
        a, b, c, d = draws.choices(room, [(b - a + 1) * (d - c + 1) for a, b, c, d in room])[0]
        return float(draws.randint(a, b)), float(draws.randint(c, d))
    corners = [(x, y) for x in (0.0, right) for y in (0.0, bottom)]
    return max(corners, key=lambda corner: abs(corner[0] - x0) + abs(corner[1] - y0))


def _overlap(box: Box, other: Box) -> float:
    """Intersection over union of two boxes, each of a pixel at least."""
    (a0, b0, a1, b1), (c0, d0, c1, d1) = ((x0, y0, max(x1, x0 + 1), max(y1, y0 + 1)) for x0, y0, x1, y1 in (box, other))
    shared = max(0.0, min(a1, c1) - max(a0, c0)) * max(0.0, min(b1, d1) - max(b0, d0))
    return shared / ((a1 - a0) * (b1 - b0) + (c1 - c0) * (d1 - d0) - shared)


def _bad_words(words: str) -> InputError:
    return InputError(
        "region_words", expected="words with {x0}, {y0}, {x1} and {y1}", got=f"'{words}'",
        remedy="write each of the four once",
    )  # fmt: skip
