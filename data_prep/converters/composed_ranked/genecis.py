"""GeneCIS (arXiv:2306.07969): a picture and a word say which of ten or fifteen pictures is alike in what sense.

The right one comes first in the candidates, as published, so that a row must decide ties against it. Where a template
names a picture twice, the later one gets a name of its own: the published code ranks it, too. The pictures of the
attribute tasks are cut out of Visual Genome as published: the box grows by 0.7 of its sides to the left and upwards
alone, unless the edge of the picture stops it, and what is cut is put on a black square.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import PIL.Image

from data_prep.converters import Converter, Media, Ranked, Record
from data_prep.converters.composed_ranked.making import Making, Query
from data_prep.converters.fields import REMEDY, identifier, in_row, text
from data_prep.source import SourceSet
from mmembed.errors import InputError
from mmembed.items import Image, Item
from mmembed.media.images import open_image
from mmembed.media.settings import MediaSettings

DILATION = 0.7
REPEATED = "candidates that their template names again, which rank under a name of their own"

Corners: TypeAlias = tuple[float, float, float, float]


@dataclass(frozen=True)
class Part:
    """A picture, or a part of one.

    Args:
        name: what it is called.
        file: the picture.
        box: x, y, width and height in its pixels; None is all of it.
    """

    name: str
    file: str
    box: Corners | None = None


def genecis(cut: bool, parts: Mapping[str, Iterator[Record]], row_set: SourceSet, media: Media) -> Ranked:
    """The retrieval set of a task; a query is named by the number of its row.

    Args:
        cut: whether pictures are cut out of Visual Genome; else they are those of COCO's val2017.
        parts: ``rows`` alone.
        row_set: the set.
        media: pictures.

    Raises:
        InputError: a row that lacks a field, a picture that does not open, or a box that it has no pixel of: the row's
            number, and the field or the file.
    """
    making = Making(media, Ranked())
    for number, record in enumerate(parts["rows"]):
        with in_row(number):
            _add(str(number), record, making, _part if cut else _picture)
    return making.made


def _add(name: str, record: Record, making: Making, read: Callable[[Any, str], Part]) -> None:
    condition, reference = text(record, "condition"), read(record.get("reference"), "reference")
    gallery = record.get("gallery")
    if not isinstance(gallery, list) or not gallery:
        raise InputError("gallery", expected="a list of pictures", got=f"{gallery!r:.80}", remedy=REMEDY)
    places = ["target", *(f"gallery[{place}]" for place in range(len(gallery)))]
    shown = [read(value, place) for value, place in zip((record.get("target"), *gallery), places, strict=True)]
    names = _own_names([part.name for part in shown])
    making.made.note(REPEATED, sum(own != part.name for own, part in zip(names, shown, strict=True)))
    for own, part, place in zip(names, shown, places, strict=True):
        if not making.has(own):
            making.add(own, _file(part, place, making), part.file)
    path = _file(reference, "reference", making)
    item = None if path is None else Item((Image(str(path)),))
    making.show(Query(name, reference.name, [condition], {names[0]: 1.0}, names), reference.file, item)


def _own_names(names: list[str]) -> list[str]:
    """The names, with a number behind those that came before."""
    counts: dict[str, int] = {}
    found = []
    for name in names:
        counts[name] = counts.get(name, 0) + 1
        found.append(name if counts[name] == 1 else f"{name}#{counts[name]}")
    return found


def _file(part: Part, where: str, making: Making) -> Path | None:
    """The file that shows a part, which is cut out unless it was before; None where the picture is missing."""
    path = making.look([part.file], where)
    if path is None or part.box is None:
        return path
    made = making.media.make(f"{part.name}.png", where).absolute()
    if not made.exists():
        shown = square(cropped(open_image(Image(str(path)), MediaSettings()), part.box, where))
        made.parent.mkdir(parents=True, exist_ok=True)
        shown.save(made)
    return made


def cropped(picture: PIL.Image.Image, box: Corners, where: str) -> PIL.Image.Image:
    """What the published code cuts out for a box.

    Raises:
        InputError: no pixel of the picture.
    """
    x, y, width, height = box
    left, top = max(0, x - DILATION * width), max(0, y - DILATION * height)
    # from the grown corner, which the edge may have stopped: only then does the box grow to the right or down, too
    right = min(picture.width, left + (1 + DILATION) * width)
    bottom = min(picture.height, top + (1 + DILATION) * height)
    # Pillow cuts at the nearest whole pixels
    left, top, right, bottom = (round(edge) for edge in (left, top, right, bottom))
    if left >= right or top >= bottom:
        expected, got = f"a box in {picture.width} x {picture.height} pixels", f"{list(box)}"
        raise InputError(f"{where}.instance_bbox", expected=expected, got=got, remedy=REMEDY)
    return picture.crop((left, top, right, bottom))


def square(picture: PIL.Image.Image) -> PIL.Image.Image:
    """The picture in the middle of a black square."""
    side = max(picture.size)
    if picture.width == picture.height:
        return picture
    padded = PIL.Image.new("RGB", (side, side))
    padded.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    return padded


def _picture(value: Any, where: str) -> Part:
    number = _number(value, "val_image_id", where)
    return Part(number, f"{int(number):012d}.jpg")


def _part(value: Any, where: str) -> Part:
    number, box = _number(value, "image_id", where), value.get("instance_bbox")
    numbers = isinstance(box, list) and all(
        isinstance(edge, int | float) and not isinstance(edge, bool) and math.isfinite(edge) for edge in box
    )
    if box is None or not numbers or len(box) != 4 or min(box[2:]) <= 0:
        expected = "4 numbers x, y, width, height, the last two above 0"
        raise InputError(f"{where}.instance_bbox", expected=expected, got=f"{box!r:.80}", remedy=REMEDY)
    x, y, width, height = box
    return Part("_".join([number, *map(str, box)]), f"{number}.jpg", (x, y, width, height))


def _number(value: Any, key: str, where: str) -> str:
    if not isinstance(value, Mapping):
        raise InputError(where, expected=f"an object with {key}", got=f"{value!r:.80}", remedy=REMEDY)
    try:
        number = identifier(value, key)
    except InputError as error:
        raise error.within(where) from None
    if not number.isdecimal():
        raise InputError(f"{where}.{key}", expected="a number", got=f"'{number}'", remedy=REMEDY)
    return number


CONVERTERS = {
    name: Converter(ranked=partial(genecis, cut), columns={"rows": ("condition", "reference", "target", "gallery")})
    for name, cut in (("genecis_objects", False), ("genecis_attributes", True))
}
"""Every converter by its name, as sources name it."""
