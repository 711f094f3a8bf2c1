"""Who is who among the queries and targets of one rank's batch.

Shapes: B queries, N targets (all positives and hard negatives of these queries), any number of hard negatives each.
"""

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from mmembed.errors import InputError


@dataclass(frozen=True)
class Candidates:
    """Who is who. A hard negative that a query lacks is absent, never a padding item.

    Args:
        owner: the query of this rank that each target came with ``[N]``.
        positive: whether a target answers its owner ``[N]``; otherwise it is a hard negative of it.
        query_keys: content of the queries as numbers ``[B]``; equal content, equal number.
        target_keys: content of the targets ``[N]``.
        classes: class of each query's pair as a number that is the same on every rank ``[B]``, -1 without one.
        sources: number of each pair's source in the mixture ``[B]``.

    Raises:
        InputError: an owner that does not exist, or a query without a positive. Looked for where the tensors are made,
            on the CPU, for on a GPU the look would make the GPU wait.
    """

    owner: Tensor
    positive: Tensor
    query_keys: Tensor
    target_keys: Tensor
    classes: Tensor
    sources: Tensor

    def __post_init__(self) -> None:
        if self.owner.device.type == "cpu":
            self._check()

    @property
    def positives(self) -> Tensor:
        """The targets that answer their owner, by number ``[P]``."""
        return self.positive.nonzero()[:, 0]

    @property
    def labels(self) -> Tensor:
        """The first positive of each query ``[B]``."""
        positives = self.positives
        last = torch.full_like(self.query_keys, len(self.owner))
        return last.scatter_reduce(0, self.owner[positives], positives, "amin")

    def to(self, device: torch.device | str) -> "Candidates":
        """The same on ``device``."""
        return replace(self, **{f.name: getattr(self, f.name).to(device, non_blocking=True) for f in fields(self)})

    def _check(self) -> None:
        queries = len(self.query_keys)
        outside = self.owner[(self.owner < 0) | (self.owner >= queries)]
        if len(outside):
            raise InputError(
                "candidates.owner", expected=f"one of {queries} queries", got=outside.tolist(),
                remedy="count the queries of this rank from 0",
            )  # fmt: skip
        alone = torch.bincount(self.owner[self.positive], minlength=queries) == 0
        if bool(alone.any()):
            raise InputError(
                "candidates.positive", expected="at least one positive for each query",
                got=f"none for queries {alone.nonzero()[:, 0].tolist()}", remedy="leave these queries out",
            )  # fmt: skip
