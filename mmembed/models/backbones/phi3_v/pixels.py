"""Pictures to tiles by the rules of the published processor of Phi-3-vision ("HD transform").

Everything stays uint8 and no empty tile is made; the view of the whole is computed where the tower runs.
"""

import math
from typing import Literal

import numpy as np
import torch
from PIL.Image import Image as Picture
from PIL.Image import Resampling, Transpose
from torch import Tensor
from torch.nn.functional import interpolate

WHITE = 255


def columns_of(ratio: float, num_crops: int) -> int:
    """Most tiles in width such that a picture of this aspect (width over height, at least 1) takes ``num_crops``."""
    return max(n for n in range(1, num_crops + 1) if n * math.ceil(n / ratio) <= num_crops)


def fit(picture: Picture, num_crops: int, side: int, backend: Literal["pil", "torchvision"]) -> np.ndarray:
    """Resize a picture to whole tiles along its longer side and pad the other with white, half before and half after.

    Args:
        picture: RGB.
        num_crops: most tiles.
        side: of a tile, in pixels.
        backend: whose bilinear resize; the two differ by a few grey levels.

    Returns:
        uint8 ``[H, W, 3]``, both multiples of ``side``.
    """
    is_tall = picture.width < picture.height
    if is_tall:
        picture = picture.transpose(Transpose.TRANSPOSE)
    ratio = picture.width / picture.height
    width = columns_of(ratio, num_crops) * side
    # a picture of extreme aspect keeps one line of pixels, where the published code stops
    height = max(1, int(width / ratio))
    resized = _resize(picture, height, width, backend)
    missing = -height % side
    padding = ((missing // 2, missing - missing // 2), (0, 0), (0, 0))
    padded = np.pad(resized, padding, constant_values=WHITE)
    return padded.transpose(1, 0, 2) if is_tall else padded


def frame(size: tuple[int, int], rows: int, columns: int, side: int) -> tuple[float, float, float, float]:
    """Where a picture lies among its tiles: left, top, right and bottom in pixels; beyond is the padding of ``fit``.

    Args:
        size: width and height of the picture.
        rows: of tiles.
        columns: of tiles.
        side: of a tile, in pixels.
    """
    long, short = max(size), min(size)
    length, breadth = max(rows, columns) * side, min(rows, columns) * side
    is_tall = size[0] < size[1]
    resized = max(1, int(length / (long / short)))
    start = (breadth - resized) // 2
    across, along = (start, start + resized), (0, length)
    (x0, x1), (y0, y1) = (across, along) if is_tall else (along, across)
    return (x0, y0, x1, y1)


def cut(picture: np.ndarray, side: int) -> tuple[Tensor, tuple[int, int, int]]:
    """Tiles of a picture ``[H, W, 3]``, row by row, uint8 ``[P, 3, 1, S, S]``; and their grid: 1, height, width."""
    rows, columns = picture.shape[0] // side, picture.shape[1] // side
    blocks = picture.reshape(rows, side, columns, side, 3).transpose(0, 2, 4, 1, 3)
    return torch.from_numpy(np.ascontiguousarray(blocks)).reshape(rows * columns, 3, 1, side, side), (1, rows, columns)


def whole_view(tiles: Tensor, rows: int, columns: int) -> Tensor:
    """The whole picture, shrunk to the size of one tile: normalised tiles ``[P, 3, S, S]`` -> ``[3, S, S]``."""
    side = tiles.shape[-1]
    grid = tiles.reshape(rows, columns, 3, side, side)
    whole = grid.permute(2, 0, 3, 1, 4).reshape(1, 3, rows * side, columns * side)
    return interpolate(whole, size=(side, side), mode="bicubic")[0]


def _resize(picture: Picture, height: int, width: int, backend: Literal["pil", "torchvision"]) -> np.ndarray:
    """Bilinear, uint8 ``[H, W, 3]``."""
    if backend == "pil":
        return np.array(picture.resize((width, height), Resampling.BILINEAR))
    from torchvision.transforms.v2 import functional as tv

    channels_first = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
    resized = tv.resize(channels_first, [height, width], tv.InterpolationMode.BILINEAR, antialias=True)
    return np.asarray(resized.permute(1, 2, 0))
