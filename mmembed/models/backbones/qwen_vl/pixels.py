"""Pictures to patches by the rules of the published code (VLM2Vec's processor for Qwen2-VL).

Everything stays uint8: a quarter of the bytes to carry, normalised where the tower runs.
"""

import math
from collections.abc import Sequence
from typing import Literal, TypeAlias

import numpy as np
import torch
from PIL.Image import Image as Picture
from PIL.Image import Resampling
from torch import Tensor

Resize: TypeAlias = Literal["pil", "torchvision", "torchvision_float"]

MAX_ASPECT = 200
SMALL_SQUARE = 56


def target_size(
    height: int,
    width: int,
    factor: int,
    min_pixels: float,
    max_pixels: float,
    thin: Literal["square", "strip"] = "square",
) -> tuple[int, int]:
    """Height and width a picture is resized to: multiples of ``factor``, within the pixel budget.

    Follows Qwen2-VL's smart_resize, but for a thin picture (a side under ``factor``, or an aspect over 200), for which
    transformers raises: it counts as a square of its longer side, or is made a strip that may leave the budget.
    """
    is_thin = min(height, width) < factor or max(height, width) / min(height, width) > MAX_ASPECT
    if is_thin and thin == "square":
        height = width = max(factor, height, width)
    rows, columns = (max(factor, round(side / factor) * factor) for side in (height, width))
    if rows * columns > max_pixels:
        shrink = math.sqrt(height * width / max_pixels)
        rows, columns = (max(factor, math.floor(side / shrink / factor) * factor) for side in (height, width))
    elif rows * columns < min_pixels:
        grow = math.sqrt(min_pixels / (height * width))
        rows, columns = (math.ceil(side * grow / factor) * factor for side in (height, width))
    if thin == "strip":
        rows, columns = min(rows, columns * MAX_ASPECT), min(columns, rows * MAX_ASPECT)
    return rows, columns


def enlarge_tiny(picture: Picture, min_side: int) -> Picture:
    """A picture with a side under ``min_side`` as a 56 x 56 square (published rule, still pictures only)."""
    if min(picture.size) < min_side:
        return picture.resize((SMALL_SQUARE, SMALL_SQUARE))
    return picture


def resize(picture: Picture, height: int, width: int, backend: Resize) -> np.ndarray:
    """Bicubic resize to uint8 ``[H, W, 3]``; the backends differ by a few grey levels."""
    if backend == "pil":
        return np.array(picture.resize((width, height), Resampling.BICUBIC))
    from torchvision.transforms.v2 import functional as tv

    pixels = np.array(picture)
    if pixels.shape[:2] == (height, width):
        return pixels
    channels_first = torch.from_numpy(pixels).permute(2, 0, 1)
    given = channels_first.float() if backend == "torchvision_float" else channels_first
    resized = tv.resize(given, [height, width], tv.InterpolationMode.BICUBIC, antialias=True)
    if resized.is_floating_point():
        resized = resized.round().clamp(0, 255).to(torch.uint8)
    return np.asarray(resized.permute(1, 2, 0))


def patchify(
    frames: Sequence[np.ndarray], patch: int, merge: int, temporal: int
) -> tuple[Tensor, tuple[int, int, int]]:
    """Cut frames into the tower's patches, those merged into one token next to each other.

    Args:
        frames: uint8 ``[H, W, 3]`` each, of one size. A single one is a still picture; of a clip, the last is repeated
            until their number is a multiple of ``temporal``.
        patch: side of a patch in pixels.
        merge: patches to a side of a token.
        temporal: frames to a patch.

    Returns:
        uint8 ``[P, 3, F, p, p]`` (F is 1 for a still picture, whose copies in time are made on the device), and the
        grid in patches: time, height, width.
    """
    still = len(frames) == 1
    depth = 1 if still else temporal
    stack = np.stack([*frames, *[frames[-1]] * (-len(frames) % depth)])
    time = len(stack) // depth
    rows, columns = stack.shape[1] // patch, stack.shape[2] // patch
    blocks = stack.reshape(time, depth, rows // merge, merge, patch, columns // merge, merge, patch, 3)
    patches = blocks.transpose(0, 2, 5, 3, 6, 8, 1, 4, 7).reshape(time * rows * columns, 3, depth, patch, patch)
    return torch.from_numpy(np.ascontiguousarray(patches)), (time, rows, columns)
