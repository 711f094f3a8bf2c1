"""Contrastive objectives over the embeddings of a whole batch."""

import torch
import torch.nn.functional as F
from torch import Tensor

from mmembed.losses.candidates import Candidates, class_mask, duplicate_mask


def infonce(
    queries: Tensor, targets: Tensor, labels: Tensor, temperature: float, masked: Tensor | None = None
) -> Tensor:
    """Cross-entropy of each query over its targets (van den Oord et al. 2018, eq. 4).

    Args:
        queries: unit-length embeddings ``[B, D]``.
        targets: unit-length embeddings ``[N, D]``, positives and negatives of every query.
        labels: row of ``targets`` that answers each query ``[B]``.
        temperature: divides the inner product; VLM2Vec uses 0.02.
        masked: True ``[B, N]`` where a target is left out of a query's comparison; never at its label.

    Returns:
        The loss of each query ``[B]``, in nats, float32.

    Raises:
        ValueError: a label points outside ``targets``, or a label is masked.
    """
    if len(labels) != len(queries) or int(labels.min()) < 0 or int(labels.max()) >= len(targets):
        raise ValueError(f"labels: expected {len(queries)} rows of {len(targets)} targets, got {labels.tolist()}")
    with torch.autocast(queries.device.type, enabled=False):
        scores = queries.float() @ targets.float().T / temperature
        if masked is not None:
            if bool(masked.gather(1, labels[:, None]).any()):
                raise ValueError("masked: expected no query's own positive, got at least one")
            scores = scores.masked_fill(masked, float("-inf"))
        return F.cross_entropy(scores, labels, reduction="none")


class ContrastiveObjective:
    """InfoNCE with duplicate and class masks; see :class:`mmembed.losses.settings.Contrastive`."""

    def __init__(self, *, temperature: float, both_directions: bool, mask_duplicates: bool, mask_classes: bool) -> None:
        self.temperature = temperature
        self.both_directions = both_directions
        self.mask_duplicates = mask_duplicates
        self.mask_classes = mask_classes

    def __call__(self, queries: Tensor, targets: Tensor, candidates: Candidates) -> tuple[Tensor, dict[str, float]]:
        """Loss of a batch and what to log: in-batch accuracy and the share of comparisons masked.

        Args:
            queries: ``[B, D]``.
            targets: ``[N, D]``.
            candidates: who is who.
        """
        masked = self.mask(candidates)
        per_query = infonce(queries, targets, candidates.labels, self.temperature, masked)
        loss = per_query.mean()
        if self.both_directions:
            loss = (loss + self._backward_direction(queries, targets, candidates, masked)) / 2
        share = 0.0 if masked is None else float(masked.float().mean())
        return loss, {"masked": share}

    def mask(self, candidates: Candidates) -> Tensor | None:
        """The union of the masks in use ``[B, N]``, None where none is."""
        masks = []
        if self.mask_duplicates:
            masks.append(duplicate_mask(candidates))
        if self.mask_classes:
            masks.append(class_mask(candidates))
        return torch.stack(masks).any(0) if masks else None

    def _backward_direction(
        self, queries: Tensor, targets: Tensor, candidates: Candidates, masked: Tensor | None
    ) -> Tensor:
        """Each positive over all queries; hard negatives have no query to find and take no part."""
        own = torch.arange(len(queries), device=queries.device)
        mask = None if masked is None else masked[:, candidates.labels].T
        return infonce(targets[candidates.labels], queries, own, self.temperature, mask).mean()
