"""Token positions: one counter, or Qwen-VL's three (time, height, width; M-RoPE, arXiv:2409.12191 sec. 2.1)."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor


@dataclass(frozen=True)
class Run:
    """Tokens of one kind in a row: so many words, or the grid ``(t, h, w)`` of a medium in tokens.

    ``time_step`` is the distance between two time steps, in positions.
    """

    length: int
    grid: tuple[int, int, int] | None = None
    time_step: float = 1.0


def sequential_positions(length: int) -> Tensor:
    """``[3, T]`` with the three counters equal: how the published VLM2Vec code runs every checkpoint.

    Its prompts have no ``<|vision_start|>``, by which Qwen2-VL's own routine finds pictures.
    """
    return torch.arange(length).expand(3, -1)


def mrope_positions(runs: Sequence[Run]) -> Tensor:
    """``[3, T]``: words count on in all three, a medium's tokens count time, height and width from where it stands."""
    pieces, start = [], 0
    # runs of words are joined first: one tensor for a sentence, not one for each of its tokens
    for is_words, group in groupby(runs, key=lambda run: run.grid is None):
        if is_words:
            length = sum(run.length for run in group)
            pieces.append(torch.arange(start, start + length).expand(3, -1))
            start += length
            continue
        for run in group:
            pieces.append(_grid_positions(run) + start)
            start += max(run.grid[1:]) if run.grid else 0
    return torch.cat(pieces, dim=1)


def _grid_positions(run: Run) -> Tensor:
    """``[3, T]`` of a medium that stands at 0."""
    time, height, width = run.grid or (0, 0, 0)
    steps = (torch.arange(time) * run.time_step).long()
    axes = torch.meshgrid(steps, torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([axis.flatten() for axis in axes])
