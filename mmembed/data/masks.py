"""Masks of regions as run lengths, the way COCO annotations hold them uncompressed."""

from collections.abc import Mapping
from typing import Any, TypeAlias, TypeGuard

import numpy as np

from mmembed.errors import InputError

Mask: TypeAlias = np.ndarray[Any, np.dtype[np.bool_]]

_MAX_PIXELS = 1 << 28


def runs_of_mask(mask: Mask) -> dict[str, list[int]]:
    """COCO's uncompressed run lengths of a boolean ``[H, W]`` mask."""
    flat = np.concatenate([[False], mask.astype(bool).ravel(order="F")])
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    counts = np.diff(np.concatenate([[0], changes, [mask.size]]))
    return {"size": [int(side) for side in mask.shape], "counts": counts.tolist()}


def mask_of_runs(runs: Any) -> Mask:
    """The boolean ``[H, W]`` mask of COCO's uncompressed run lengths.

    Raises:
        InputError: not run lengths, lengths that do not add up to the size, or more than 2**28 pixels.
    """
    size, counts = (runs.get("size"), runs.get("counts")) if isinstance(runs, Mapping) else (None, None)
    if not (_are_counts(size) and _are_counts(counts) and len(size) == 2):
        remedy = "write {size: [height, width], counts: [...]} with the lengths uncompressed"
        raise InputError("region.mask", expected="run lengths", got=f"{runs!r:.80}", remedy=remedy)
    height, width = size
    if sum(counts) != height * width or height * width > _MAX_PIXELS:
        expected = f"runs over {height} x {width} pixels, at most {_MAX_PIXELS} of them"
        raise InputError("region.mask", expected=expected, got=f"{sum(counts)} pixels", remedy="encode the mask again")
    inside = np.arange(len(counts)) % 2 == 1
    return np.repeat(inside, counts).reshape((height, width), order="F")


def _are_counts(value: Any) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(isinstance(number, int) and number >= 0 for number in value)
