"""Which targets each query is compared with, and which of them must not count as negatives.

Shapes: B queries of a batch, N targets (every positive and hard negative of every query).
"""

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Candidates:
    """Who is who among the targets of a batch.

    Args:
        labels: the target that answers each query ``[B]``.
        owner: the query each target came with ``[N]``.
        query_keys: content names of the queries as numbers ``[B]``; equal content, equal number.
        target_keys: content names of the targets ``[N]``.
        classes: class of each query's pair as a number ``[B]``, -1 without one.
    """

    labels: Tensor
    owner: Tensor
    query_keys: Tensor
    target_keys: Tensor
    classes: Tensor

    def to(self, device: torch.device | str) -> "Candidates":
        """The same on ``device``."""
        return replace(self, **{f.name: getattr(self, f.name).to(device, non_blocking=True) for f in fields(self)})


def duplicate_mask(candidates: Candidates) -> Tensor:
    """True ``[B, N]`` where a target has the content of the query's positive, or answers a query of equal content."""
    own = candidates.target_keys[candidates.labels]
    same_target = candidates.target_keys[None, :] == own[:, None]
    same_query = candidates.query_keys[candidates.owner][None, :] == candidates.query_keys[:, None]
    return _keep_own(same_target | (same_query & _answers(candidates)[None, :]), candidates.labels)


def class_mask(candidates: Candidates) -> Tensor:
    """True ``[B, N]`` where a target answers a query of the same class; pairs without a class mask nothing.

    Hard negatives stay: what is wrong for a query is wrong for its class.
    """
    classes = candidates.classes
    same = classes[candidates.owner][None, :] == classes[:, None]
    return _keep_own(same & (classes >= 0)[:, None] & _answers(candidates)[None, :], candidates.labels)


def _answers(candidates: Candidates) -> Tensor:
    """Which targets are the positive of the query they came with ``[N]``."""
    return candidates.labels[candidates.owner] == torch.arange(len(candidates.owner), device=candidates.owner.device)


def _keep_own(mask: Tensor, labels: Tensor) -> Tensor:
    return mask.scatter(1, labels[:, None], False)
