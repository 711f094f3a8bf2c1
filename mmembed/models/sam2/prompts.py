"""Regions as SAM 2 is prompted with them: points and corners in pixels of the square that it sees, or a mask."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mmembed.items import Point
from mmembed.models.region_prompts import RegionPrompt

TOP_LEFT, BOTTOM_RIGHT, NO_POINT = 2, 3, -1
"""SAM's labels of a box's corners, and of a point that stands for none; 1 and 0 are inside and outside."""
MASK_SCALE, MASK_BIAS = 20.0, -10.0
"""What a mask is scaled by to look like the logits of one that SAM 2 made, as its own code does."""


@dataclass(frozen=True)
class SamPrompt:
    """One prompt for SAM 2.

    Args:
        points: ``(x, y, label)`` in pixels of its square.
        mask: bool ``[H, W]`` of the picture's own size.
    """

    points: tuple[Point, ...] = ()
    mask: np.ndarray | None = None


def sam_prompt(prompt: RegionPrompt | None, side: int, grid: int = 3) -> SamPrompt:
    """A region as SAM 2's prompt; of a picture without one, a grid of points inside (VIRTUE, arXiv:2510.00523).

    Args:
        prompt: the region.
        side: of SAM 2's square, in pixels.
        grid: points to each side of the grid.
    """
    if prompt is None:
        places = [(2 * i + 1) / (2 * grid) * side for i in range(grid)]
        return SamPrompt(tuple((x, y, 1) for y in places for x in places))
    if prompt.mask is not None:
        return SamPrompt(mask=prompt.mask)
    if prompt.box is not None:
        return box_prompt(*(share * side for share in prompt.box))
    return SamPrompt(tuple((x * side, y * side, label) for x, y, label in prompt.points))


def box_prompt(x0: float, y0: float, x1: float, y1: float) -> SamPrompt:
    """A box in pixels of SAM 2's square."""
    return SamPrompt(((x0, y0, TOP_LEFT), (x1, y1, BOTTOM_RIGHT)))


def alike(prompts: Sequence[SamPrompt], most: int) -> list[list[int]]:
    """The numbers of the prompts in groups that may pass through the decoder together: at most ``most`` of one form."""
    forms: dict[tuple[int, bool], list[int]] = {}
    for i, prompt in enumerate(prompts):
        forms.setdefault((len(prompt.points), prompt.mask is not None), []).append(i)
    return [group[i : i + most] for group in forms.values() for i in range(0, len(group), most)]


def point_tensors(prompts: Sequence[SamPrompt], device: torch.device) -> tuple[Tensor, Tensor]:
    """Coordinates ``[R, 1, n, 2]`` and labels ``[R, 1, n]`` of prompts with the same number of points.

    A mask alone stands beside one point that is none.
    """
    points = [prompt.points or ((0.0, 0.0, NO_POINT),) for prompt in prompts]
    xys = torch.tensor([[[x, y] for x, y, _ in each] for each in points], dtype=torch.float32, device=device)
    labels = torch.tensor([[label for _, _, label in each] for each in points], dtype=torch.int32, device=device)
    return xys[:, None], labels[:, None]


def mask_tensor(prompts: Sequence[SamPrompt], size: tuple[int, int], device: torch.device) -> Tensor | None:
    """Logits ``[R, 1, h, w]`` of masks, each resized to ``size``; None of prompts without one."""
    masks = [prompt.mask for prompt in prompts if prompt.mask is not None]
    if not masks:
        return None
    tensors = (torch.from_numpy(mask.astype(np.float32)).to(device)[None, None] for mask in masks)
    resized = [F.interpolate(mask, size, mode="bilinear", align_corners=False, antialias=True) for mask in tensors]
    return torch.cat(resized) * MASK_SCALE + MASK_BIAS
