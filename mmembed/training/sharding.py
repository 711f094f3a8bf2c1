"""Weights spread over the processes (FSDP2), and what keeps their processes in step.

Each layer is gathered when it runs and given back after. A process that ran other layers than the rest, or ran them
another number of times, would wait for ever; so every chunk runs every layer (a chunk without media carries a filler
row, see :class:`mmembed.training.batches.PairPreparer`), and every rank passes the same number of chunks.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from mmembed.errors import InputError
from mmembed.models.compiled import repeated_layers
from mmembed.models.embedder import Embedder
from mmembed.models.sequence import Batch
from mmembed.processes import everyone
from mmembed.training.batches import TrainingBatch


def shard(embedder: Embedder, mesh: DeviceMesh) -> None:
    """Spread the weights over a mesh of one dimension, layer by layer, in place; gradients are summed over it.

    A frozen tower stays whole on each process: its features are computed outside the model's forward, once a step.
    """
    _refuse_two_runs(embedder)
    tower = embedder.backbone.tower
    whole = {*tower.parameters(), *_marking(embedder)} if embedder.tower_is_frozen else set()
    # single numbers cannot be spread; those of a loss that is not ours never train
    whole |= {p for p in embedder.parameters() if p.dim() == 0 and not p.requires_grad}
    for layer in repeated_layers(embedder.backbone):
        if not whole.issuperset(layer.parameters()):
            fully_shard(layer, mesh=mesh)
    for part in _beside(embedder):
        if not whole.issuperset(part.parameters()):
            # kept whole until the backward, as the root is: what they give is no tensor that would call them back
            fully_shard(part, mesh=mesh, reshard_after_forward=False)
    fully_shard(embedder, mesh=mesh, ignored_params=whole)
    for module in embedder.modules():
        if isinstance(module, FSDPModule):
            # the ranks' losses are parts of one sum; gloo adds but does not average
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)


def _beside(embedder: Embedder) -> list[nn.Module]:
    """What stands beside the backbone, in float32 whatever its type, where one unit holds weights of one type alone."""
    regions = embedder.regions
    return [embedder.pooler, *(regions.children() if regions.marks_patches else [regions])]


def _marking(embedder: Embedder) -> list[nn.Parameter]:
    """Weights of a region encoder that run with the tower."""
    return list(embedder.regions.parameters()) if embedder.regions.marks_patches else []


def _refuse_two_runs(embedder: Embedder) -> None:
    """A rank whose chunk runs as two, short rows and long, would wait for the others for ever."""
    limit = embedder.backbone.runs_twice_beyond
    longest = getattr(embedder.settings.backbone, "max_length", None)
    if limit is not None and (longest is None or longest > limit):
        raise InputError(
            "strategy: fsdp2", expected=f"max_length of at most {limit}, or longrope_by: batch", got=longest,
            remedy="set one of the two: rows of both lengths would take another number of runs on each rank",
        )  # fmt: skip


def is_sharded(embedder: nn.Module) -> bool:
    """Whether :func:`shard` was applied."""
    return isinstance(embedder, FSDPModule)


def even_chunks(batch: TrainingBatch) -> list[Batch]:
    """The batch's chunks, and the filler as often as makes every rank pass the same number."""
    most = max(everyone(len(batch.chunks)))
    if batch.filler is None:
        raise ValueError("even_chunks: expected a batch prepared with filler=True, got one without")
    return [*batch.chunks, *[batch.filler] * (most - len(batch.chunks))]


def whole_tensor(value: Any) -> Tensor:
    """A tensor of all shards, on the CPU; every rank must ask for it."""
    tensor = value.full_tensor() if isinstance(value, DTensor) else value
    return torch.as_tensor(tensor).detach().cpu()
