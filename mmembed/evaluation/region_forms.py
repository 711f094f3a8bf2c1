"""Queries whose regions are shown in another form: told in words, cut out of their picture, or moved in it.

Coordinates are pixels of the original picture, as everywhere in items.
"""

import io
import math
import random
from dataclasses import replace
from typing import Literal, TypeAlias

import numpy as np

from mmembed.errors import InputError
from mmembed.items import Box, Image, Item, Part, Region
from mmembed.media.images import open_image
from mmembed.media.regions import clip_box, without_regions
from mmembed.media.settings import MediaSettings

RegionForm: TypeAlias = Literal["region", "words", "both", "crop"]
Size: TypeAlias = tuple[int, int]
"""Width and height in pixels."""

REGION_WORDS = "Referring object bbox: ({x0}, {y0}, {x1}, {y1})"
"""How the demo of VIRTUE (arXiv:2510.00523) tells a box in words."""


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
    """The item with its pictures cut to the smallest box around their regions."""
    return replace(item, content=tuple(_cut(part, media) for part in item.content))


def moved(image: Image, seed: str, media: MediaSettings) -> Image:
    """The picture with each region elsewhere in it, as large as before and apart from where it was if there is room.

    Args:
        image: with its regions.
        seed: draws where to.
        media: how pictures are decoded.
    """
    size = open_image(image, media).size
    draws = random.Random(seed)
    return replace(image, regions=tuple(_moved(region, size, draws) for region in image.regions))


def bounds(region: Region, size: Size) -> Box:
    """The smallest box around all of a region of a picture of ``size``, in pixels."""
    if region.box is not None:
        return clip_box(region.box, *size)
    if region.mask is not None:
        rows, columns = (np.flatnonzero(region.mask.any(axis)) for axis in (1, 0))
        return (float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))
    xs, ys, _ = zip(*region.points, strict=True)
    return clip_box((min(xs), min(ys), max(xs), max(ys)), *size)


def _regions(item: Item) -> list[tuple[Image, Region]]:
    return [(part, region) for part in item.content if isinstance(part, Image) for region in part.regions]


def _told(region: Region, image: Image, media: MediaSettings) -> Box:
    """The box as it was given, which the published strings print digit by digit; else the one around the region."""
    return region.box if region.box is not None else bounds(region, open_image(image, media).size)


def _cut(part: Part, media: MediaSettings) -> Part:
    if not isinstance(part, Image) or not part.regions:
        return part
    picture = open_image(part, media)
    around = [bounds(region, picture.size) for region in part.regions]
    x0, y0 = (math.floor(min(box[side] for box in around)) for side in (0, 1))
    x1, y1 = (math.ceil(max(box[side] for box in around)) for side in (2, 3))
    # a point is less than a pixel
    x0, y0 = min(x0, picture.width - 1), min(y0, picture.height - 1)
    file = io.BytesIO()
    picture.crop((x0, y0, max(x1, x0 + 1), max(y1, y0 + 1))).save(file, "PNG")
    return Image(file.getvalue())


def _moved(region: Region, size: Size, draws: random.Random) -> Region:
    box = bounds(region, size)
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
    strips = [
        (0.0, x0 - (x1 - x0), 0.0, bottom), (x1, right, 0.0, bottom),
        (0.0, right, 0.0, y0 - (y1 - y0)), (0.0, right, y1, bottom),
    ]  # fmt: skip
    whole = [(math.ceil(a), math.floor(b), math.ceil(c), math.floor(d)) for a, b, c, d in strips]
    room = [(a, b, c, d) for a, b, c, d in whole if a <= b and c <= d]
    if room:
        a, b, c, d = draws.choices(room, [(b - a + 1) * (d - c + 1) for a, b, c, d in room])[0]
        return float(draws.randint(a, b)), float(draws.randint(c, d))
    corners = [(x, y) for x in (0.0, right) for y in (0.0, bottom)]
    return max(corners, key=lambda corner: abs(corner[0] - x0) + abs(corner[1] - y0))


def _bad_words(words: str) -> InputError:
    return InputError(
        "region_words", expected="words with {x0}, {y0}, {x1} and {y1}", got=f"'{words}'",
        remedy="write each of the four once",
    )  # fmt: skip
