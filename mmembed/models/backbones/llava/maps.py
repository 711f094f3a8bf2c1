"""Where the features of a LLaVA's tiles lie in their picture."""

from typing import Any

import numpy as np
from torch import Tensor
from transformers.image_processing_utils import get_patch_output_size
from transformers.image_utils import ChannelDimension

from mmembed.models.backbones.llava.tiles import Tiles
from mmembed.models.sequence import PatchMap

Frame = tuple[float, float, float, float]


def grid_map(features: Tensor, size: tuple[int, int], tiles: Tiles) -> PatchMap:
    """The grid of tiles of a picture, which is finer than the view of the whole before it.

    Where a tile is no multiple of its patches (SigLIP's 384 of 14) its last pixels are in no patch; the patches count
    as spread over all of it, so that the map of several tiles has no gaps.

    Args:
        features: ``[v, C]``, the whole and then the grid with a line break behind each row.
        size: width and height of the picture.
        tiles: of the checkpoint.
    """
    rows, columns = tiles.shrunk(*tiles.unpadded(*size))
    lines = features[tiles.tokens :].view(rows, columns + 1, -1)
    return PatchMap(lines[:, :columns], _grid_frame(size, tiles))


def tile_map(features: Tensor, size: tuple[int, int], tiles: Tiles, processor: Any, *, squared: bool) -> PatchMap:
    """A picture that is one tile; what a processor crops off lies beyond the map.

    Args:
        features: ``[v, C]``, perhaps with a class token before and a line break behind.
        size: width and height of the picture.
        tiles: of the checkpoint.
        processor: what made the tile.
        squared: whether it padded the picture to a square first.
    """
    first, side = tiles.tokens - tiles.patches**2, tiles.patches
    cells = features[first : first + side**2].view(side, side, -1)
    x0, y0, x1, y1 = _tile_frame(size, processor, squared)
    pixels = tiles.patch
    return PatchMap(cells, (x0 / pixels, y0 / pixels, x1 / pixels, y1 / pixels))


def _grid_frame(size: tuple[int, int], tiles: Tiles) -> Frame:
    width, height = size
    grid = tiles.grid(width, height)
    target = (grid[0] * tiles.side, grid[1] * tiles.side)
    picture = np.broadcast_to(np.uint8(0), (3, height, width))
    resized = get_patch_output_size(picture, target, ChannelDimension.FIRST)
    kept = tiles.unpadded(width, height)
    edges = []
    for full, cells, now, long, whole in zip(
        (n * tiles.patches for n in grid), kept, tiles.shrunk(*kept), resized, target, strict=True
    ):
        # from pixels of the padded picture to cells, less the cells cut off, then shrunk
        start = (whole - long) // 2
        ends = (edge * tiles.patches / tiles.side - (full - cells) // 2 for edge in (start, start + long))
        edges.append([end * now / cells for end in ends])
    (y0, y1), (x0, x1) = edges
    return (x0, y0, x1, y1)


def _tile_frame(size: tuple[int, int], processor: Any, squared: bool) -> Frame:
    """Where the picture lies in its one tile, in pixels of the tile."""
    width, height = size
    canvas = (max(size), max(size)) if squared else size
    left, top = (canvas[0] - width) // 2, (canvas[1] - height) // 2
    x, y = 1.0, 1.0
    if processor.do_resize:
        resized = _resized(canvas, processor.size)
        x, y = resized[0] / canvas[0], resized[1] / canvas[1]
        canvas = resized
    right, down = 0, 0
    if processor.do_center_crop:
        crop = processor.crop_size
        right, down = ((now - int(of)) // 2 for now, of in zip(canvas, (crop.width, crop.height), strict=True))
    return (left * x - right, top * y - down, (left + width) * x - right, (top + height) * y - down)


def _resized(canvas: tuple[int, int], size: Any) -> tuple[int, int]:
    width, height = canvas
    if size.height and size.width:
        return int(size.width), int(size.height)
    short = int(size.shortest_edge)
    return (short, int(short * height / width)) if width < height else (int(short * width / height), short)
