"""One gradient reduction a step: every process ends with the sum of all gradients."""

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from mmembed.counters import count


def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Add up the gradients of all processes, in place, by one all-reduce for each type of number.

    The same parameters must be given in the same order everywhere. A parameter that has no gradient on this process
    takes part with zeros, for another may have one (a text-only batch leaves the tower out); one without a gradient on
    any process keeps none, so that the optimiser leaves it alone as it would with one process. Sharded gradients are
    left as they are: their sharding has summed them.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return
    plain = [p for p in parameters if p.requires_grad and not isinstance(p, DTensor)]
    for dtype in sorted({p.dtype for p in plain}, key=str):
        _sum([p for p in plain if p.dtype == dtype])


def _sum(parameters: list[nn.Parameter]) -> None:
    # a flag each travels behind the gradients: how many processes have one
    here = torch.tensor([float(p.grad is not None) for p in parameters]).to(parameters[0])
    flat = torch.cat([*(_flat_gradient(p) for p in parameters), here])
    dist.all_reduce(flat)
    count("gradient_reductions")
    sizes = [p.numel() for p in parameters]
    *pieces, somewhere = torch.split(flat, [*sizes, len(parameters)])
    for parameter, piece, used in zip(parameters, pieces, somewhere.tolist(), strict=True):
        if used:
            parameter.grad = piece.view_as(parameter)


def _flat_gradient(parameter: nn.Parameter) -> Tensor:
    gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
    return gradient.detach().reshape(-1)
