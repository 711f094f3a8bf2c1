"""Regions on maps of patches: which cells a region is made of, and by how much. CPU only, small numpy arrays.

Coordinates of a map are in cells: a cell's centre is at a half, the map ends at its number of cells.
"""

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from mmembed.errors import InputError
from mmembed.items import Box, Point
from mmembed.media.regions import pixels_of
from mmembed.models.backbone import Backbone
from mmembed.models.region_prompts import RegionPrompt, Size
from mmembed.models.sequence import Batch

WHOLE: Box = (0.0, 0.0, 1.0, 1.0)
"""A picture as a box, in shares of its sides."""
EMPTY = 1e-12
"""Less of a cell than this is rounding; a pixel of the largest picture, or a box within one, is more."""
_OCTAVES = 8
CODE_WIDTH = 4 * 2 * _OCTAVES
"""Numbers that :func:`encode_places` makes of a place."""


def bins(start: float, end: float, number: int, length: int) -> np.ndarray:
    """How much each cell of a map counts in each bin of a region along one side, by RoIAlign (arXiv:1703.06870 sec. 3).

    RoIAlign in the plane is the product of its two sides. The rules are torchvision's with ``aligned``, and at least
    two samples to a bin and at least one to a cell of the map, so that a bin sees all that lies in it. A sample more
    than a cell beyond the last centre counts nothing.

    Args:
        start: where the region begins, in cells.
        end: where it ends.
        number: of bins.
        length: cells of the map.

    Returns:
        ``[number, length]``; a row sums to 1 where the bin is in the map.
    """
    size = (end - start) / number
    samples = max(2, math.ceil(size))
    at = start + (np.arange(number * samples) + 0.5) * (size / samples) - 0.5
    counts = ((at >= -1) & (at <= length)) / samples
    at = at.clip(0, length - 1)
    low = np.floor(at).astype(int)
    high, share, rows = np.minimum(low + 1, length - 1), at - low, np.arange(len(at))
    weights = np.zeros((len(at), length))
    weights[rows, low] += (1 - share) * counts
    weights[rows, high] += share * counts
    summed: np.ndarray = weights.reshape(number, samples, length).sum(1)
    return summed


def coverage(region: np.ndarray | Box, edges: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """The share of every cell of a grid that lies under a mask or box; exact, a pixel counts by its part in the cell.

    Args:
        region: bool ``[H, W]`` of the picture, or a box in shares of its sides.
        edges: where the grid's rows and columns begin and end, ``[h + 1]`` and ``[w + 1]``, in shares of the picture's
            sides; what is outside of [0, 1] lies under no mask.

    Returns:
        ``[h, w]`` in [0, 1].
    """
    rows, columns = edges
    if isinstance(region, tuple):
        x0, y0, x1, y1 = region
        return np.outer(_between(y0, y1, rows), _between(x0, x1, columns))
    summed = _sums(_sums(region, rows).T, columns).T
    cell = np.outer(np.diff(rows) * region.shape[0], np.diff(columns) * region.shape[1])
    shares: np.ndarray = summed / cell
    return shares


def mask_of(prompt: RegionPrompt, point_side: float) -> np.ndarray:
    """A region as a mask of its picture, bool ``[H, W]``; points are squares, of which those outside are cut out.

    Points that say only what is not meant mean all the rest.

    Args:
        prompt: the region.
        point_side: side of the square around a point, as a share of the picture's shorter side.

    Raises:
        InputError: nothing is left of the squares inside.
    """
    if prompt.mask is not None:
        return prompt.mask
    width, height = prompt.size
    mask = np.full((height, width), not any(label for _, _, label in prompt.points) and prompt.box is None)
    boxes = [] if prompt.box is None else [(prompt.box, True)]
    boxes += [(point_box(p, point_side, prompt.size), bool(p[2])) for p in sorted(prompt.points, key=lambda p: -p[2])]
    for box, is_inside in boxes:
        x0, y0, x1, y1 = pixels_of(box, width, height)
        mask[y0 : y1 + 1, x0 : x1 + 1] = is_inside
    if not mask.any():
        raise InputError(
            "region.points", expected="a point inside whose square is not all under squares of points outside",
            got=prompt.points, remedy="lower point_side of the region encoder, or move the points outside away",
        )  # fmt: skip
    return mask


def cell_edges(frame: tuple[float, float, float, float], height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Where the rows and columns of a map of ``height`` x ``width`` cells begin and end, in shares of the picture.

    ``frame`` is where the picture lies on the map, see :class:`~mmembed.models.sequence.PatchMap`.
    """
    left, top, right, bottom = frame
    return (np.arange(height + 1) - top) / (bottom - top), (np.arange(width + 1) - left) / (right - left)


def box_edges(box: Box, rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Where the rows and columns of a box cut into cells begin and end, in shares of the picture."""
    x0, y0, x1, y1 = box
    return np.linspace(y0, y1, rows + 1), np.linspace(x0, x1, columns + 1)


def point_box(point: Point, side: float, size: Size) -> Box:
    """The square around a point as far as it lies in the picture, in shares of its sides.

    Args:
        point: ``(x, y, label)`` in shares.
        side: of the square, as a share of the picture's shorter side.
        size: width and height of the picture.
    """
    half = side * min(size) / 2
    (x, y, _), dx, dy = point, half / size[0], half / size[1]
    return (max(x - dx, 0.0), max(y - dy, 0.0), min(x + dx, 1.0), min(y + dy, 1.0))


def encode_places(places: Tensor) -> Tensor:
    """Places in [0, 1] as sines and cosines of octaves: ``[T, 4]`` -> ``[T, CODE_WIDTH]``.

    The slowest is half a turn over the picture's side, the fastest tells apart a hundredth of it.
    """
    turns = places[..., None] * (math.pi * 2.0 ** torch.arange(_OCTAVES, device=places.device))
    return torch.cat([turns.sin(), turns.cos()], dim=-1).flatten(-2)


def regions_by_medium(batch: Batch) -> Iterator[tuple[int, list[int]]]:
    """Every medium that has regions, with the numbers of them in ``batch.regions``."""
    found: dict[int, list[int]] = {}
    for number, slot in enumerate(batch.regions):
        found.setdefault(slot.medium, []).append(number)
    yield from found.items()


def prompts_in(batch: Batch) -> list[RegionPrompt]:
    """The regions of a batch whose encoder has tokens for regions alone."""
    return [slot.prompt for slot in batch.regions if slot.prompt is not None]


def mix(weights: np.ndarray, features: Tensor) -> Tensor:
    """Weighted sums of a map's cells in float32, whatever else the model runs in.

    Args:
        weights: ``[T, h * w]``.
        features: ``[h, w, C]``.

    Returns:
        ``[T, C]``.
    """
    with torch.autocast(features.device.type, enabled=False):
        return torch.from_numpy(weights).to(features.device, torch.float32) @ features.flatten(0, 1).float()


def check_patch_maps(backbone: Backbone) -> None:
    """Refuse a backbone whose features are no map of the picture, before it is shown any.

    Raises:
        InputError: see :meth:`Backbone.patch_maps`.
    """
    none = torch.zeros(0, dtype=torch.long)
    grids = none.reshape(0, 3)
    backbone.patch_maps(Batch(none, none, grids.T, none, none, None, grids, none, none.reshape(0, 2), none, none), [])


def _between(low: float, high: float, edges: np.ndarray) -> np.ndarray:
    """The share of each piece between two edges that lies between ``low`` and ``high``."""
    shares: np.ndarray = np.diff(edges.clip(low, high)) / np.diff(edges)
    return shares


def _sums(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Sums of rows of pixels between edges in shares, a row counted by its part: ``[H, W]`` -> ``[h, W]``."""
    length = len(values)
    at = edges.clip(0, 1) * length
    row = np.floor(at).astype(int).clip(max=length - 1)
    # from the first row with an edge in it, and from one to the next, for a mask has many others
    stops, which = np.unique(row, return_inverse=True)
    pieces = np.add.reduceat(values, stops, axis=0, dtype=np.int32 if values.dtype == bool else values.dtype)
    above = np.concatenate([np.zeros_like(pieces[:1]), pieces[:-1].cumsum(0)])[which]
    sums: np.ndarray = np.diff(above + (at - row)[:, None] * values[row], axis=0)
    return sums
