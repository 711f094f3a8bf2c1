"""Masks of COCO annotations: polygons, run lengths, and run lengths packed into a string."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageDraw

from mmembed.data.masks import Mask, mask_of_runs
from mmembed.errors import InputError

REMEDY = "mend the row, or take the box"


def mask_of(segmentation: Any, size: tuple[int, int]) -> Mask:
    """The boolean ``[H, W]`` mask of an annotation.

    A polygon holds the pixels that its outline touches or encloses, a rim of up to a pixel more than COCO's own.

    Args:
        segmentation: polygons ``[[x, y, x, y, ...], ...]``, or ``{"size": [height, width], "counts": ...}``; also as
            JSON.
        size: width and height of the picture.

    Raises:
        InputError: something else, or a mask of another size.
    """
    found = _read(segmentation)
    if isinstance(found, Mapping):
        counts = found.get("counts")
        if isinstance(counts, str | bytes):
            found = {**found, "counts": unpacked(counts)}
        mask = mask_of_runs(found)
    else:
        mask = _filled(found, size)
    if mask.shape != (size[1], size[0]):
        got = f"a mask of {mask.shape[1]} x {mask.shape[0]}"
        raise InputError("segmentation", expected=f"{size[0]} x {size[1]} pixels", got=got, remedy=REMEDY)
    return mask


def unpacked(counts: str | bytes) -> list[int]:
    """Run lengths out of COCO's string: 5 bits a character from the lowest on, bit 6 says that more follow.

    From the fourth on, each is stored as its difference from the one two before it.

    Raises:
        InputError: a string that ends within a number.
    """
    runs: list[int] = []
    value = shift = 0
    for code in counts.encode() if isinstance(counts, str) else counts:
        bits = code - 48
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    if shift:
        raise InputError("segmentation", expected="whole run lengths", got="a string that is cut off", remedy=REMEDY)
    return runs


def _read(segmentation: Any) -> Any:
    if not isinstance(segmentation, str):
        return segmentation
    try:
        return json.loads(segmentation)
    except ValueError as error:
        raise _unknown(segmentation) from error


def _filled(polygons: Any, size: tuple[int, int]) -> Mask:
    if not isinstance(polygons, list) or not polygons:
        raise _unknown(polygons)
    picture = PIL.Image.new("1", size)
    brush = PIL.ImageDraw.Draw(picture)
    for polygon in polygons:
        numbers = isinstance(polygon, list) and all(isinstance(value, int | float) for value in polygon)
        if not numbers or len(polygon) < 6 or len(polygon) % 2:
            raise _unknown(polygons)
        brush.polygon(polygon, fill=1, outline=1)
    return np.array(picture, dtype=np.bool_)


def _unknown(value: Any) -> InputError:
    return InputError("segmentation", expected="polygons or run lengths", got=f"{value!r:.80}", remedy=REMEDY)
