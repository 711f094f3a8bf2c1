"""What the processes of a run know together. With one process nothing of torch.distributed is touched."""

from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from mmembed.counters import count


def world() -> int:
    """How many processes train."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if world() > 1 else 0


def gather(tensor: Tensor, counts: Sequence[int] | None = None) -> Tensor:
    """The rows of all ranks in rank order; with one process the tensor itself.

    In the backward pass each rank receives, for its own rows, the sum of all ranks' gradients, and nothing of the
    others'. So every rank must run the backward pass through it, a rank without rows too. Counts ``gathered_bytes``
    received here and ``scattered_bytes`` received in the backward pass; pieces are padded to the longest.

    Args:
        tensor: ``[n, ...]``; n may differ between ranks and may be 0, the other sizes and the type may not.
        counts: n of each rank where it is known; None asks the ranks.

    Returns:
        ``[sum of all n, ...]``.
    """
    if world() == 1:
        return tensor
    if counts is None:
        counts = gather(torch.tensor([len(tensor)], device=tensor.device), [1] * world()).tolist()
    return cast(Tensor, _Gather.apply(tensor, counts))


def total(tensor: Tensor) -> Tensor:
    """The sum of a tensor over the ranks, detached."""
    tensor = tensor.detach().clone()
    if world() > 1:
        dist.all_reduce(tensor)
    return tensor


def anywhere(here: bool, device: torch.device) -> bool:
    """Whether something is so on any rank; every rank must ask."""
    return here if world() == 1 else bool(total(torch.tensor(float(here), device=device)) > 0)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, counts: Sequence[int]) -> Tensor:
        ctx.counts = list(counts)
        padded = _padded(tensor, max(counts))
        pieces = [torch.empty_like(padded) for _ in counts]
        if padded.numel():
            dist.all_gather(pieces, padded)
            count("gathered_bytes", padded.nbytes * len(pieces))
        return torch.cat([piece[:rows] for piece, rows in zip(pieces, counts, strict=True)])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        pieces = [_padded(piece, max(ctx.counts)) for piece in torch.split(gradient, ctx.counts)]
        summed = torch.empty_like(pieces[0])
        if summed.numel():
            dist.reduce_scatter(summed, pieces)
            count("scattered_bytes", summed.nbytes)
        return summed[: ctx.counts[dist.get_rank()]], None


def _padded(rows: Tensor, length: int) -> Tensor:
    """A copy with zeros behind it: gloo and NCCL exchange equal shapes only."""
    padded = rows.new_zeros(length, *rows.shape[1:])
    padded[: len(rows)] = rows
    return padded
