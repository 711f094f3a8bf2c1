"""What the processes of a run know together. With one process nothing of torch.distributed is touched."""

from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable


def world() -> int:
    """How many processes train."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if world() > 1 else 0


def gather(tensor: Tensor, counts: Sequence[int] | None = None) -> Tensor:
    """The rows of all ranks in rank order; with one process the tensor itself.

    In the backward pass each rank receives, for its own rows, the sum of all ranks' gradients. So every rank must run
    the backward pass through it, a rank without rows too.

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


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, counts: Sequence[int]) -> Tensor:
        ctx.counts = counts
        # gloo and NCCL gather equal shapes only
        padded = tensor.new_zeros(max(counts), *tensor.shape[1:])
        padded[: len(tensor)] = tensor
        pieces = [torch.empty_like(padded) for _ in counts]
        if padded.numel():
            dist.all_gather(pieces, padded)
        return torch.cat([piece[:count] for piece, count in zip(pieces, counts, strict=True)])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        start = sum(ctx.counts[: dist.get_rank()])
        # a copy: autograd may hand the same gradient to others
        summed = total(gradient.contiguous())
        return summed[start : start + ctx.counts[dist.get_rank()]], None
