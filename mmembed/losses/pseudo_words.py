"""Objectives that train a mapping network: what its pseudo-words mean, or which they are.

Shapes: n pairs of this rank, N of all ranks, D numbers of a text vector, W of a pseudo-word.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from mmembed.losses.gather import gather, rank, total, world
from mmembed.losses.objectives import Loss, Objective
from mmembed.losses.settings import Distillation


class LinCirObjective(Objective):
    """See :class:`mmembed.losses.settings.LinCIR`."""

    def forward(self, filled: Tensor, captions: Tensor) -> Loss:
        """The mean squared error over the numbers of all pairs; every rank must call it.

        Args:
            filled: text vectors of the captions with their pseudo-words ``[n, D]``.
            captions: text vectors of the captions ``[n, D]``; neither is scaled to unit length.
        """
        with torch.autocast(filled.device.type, enabled=False):
            filled, captions = filled.float(), captions.float()
            errors = (filled - captions).square().mean(-1)
            return _loss(errors, {"cosine": F.cosine_similarity(filled, captions, dim=-1)})


class DistillationObjective(Objective):
    """See :class:`mmembed.losses.settings.Distillation`."""

    def __init__(self, settings: Distillation) -> None:
        super().__init__()
        self.settings = settings

    def forward(self, words: Tensor, teachers: Tensor, filled: Tensor, phrases: Tensor) -> Loss:
        """Both terms over all pairs; every rank must call it, and run its backward pass.

        Args:
            words: the network's pseudo-words ``[n, W]``.
            teachers: those to learn ``[n, W]``.
            filled: text vectors of the phrases with the network's pseudo-words ``[n, D]``.
            phrases: text vectors of the phrases as they are ``[n, D]``.
        """
        with torch.autocast(words.device.type, enabled=False):
            apart = nt_xent(words.float(), teachers.float(), self.settings.temperature)
            unlike = 1 - F.cosine_similarity(filled.float(), phrases.float(), dim=-1)
            return _loss(apart + self.settings.phrases * unlike, {"distillation": apart, "phrases": unlike})


def nt_xent(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """For each pair, the mean of its two rows' cross-entropies over the other 2N - 1 rows (arXiv:2002.05709 eq. 1).

    Args:
        first: rows of this rank ``[n, W]``; of any length, for only directions count.
        second: the row that belongs to each of them ``[n, W]``.
        temperature: divides the cosines.

    Returns:
        ``[n]``.
    """
    ours = torch.stack([F.normalize(first, dim=-1), F.normalize(second, dim=-1)], dim=1)
    counts = gather(torch.tensor([len(ours)], device=ours.device), [1] * world()).tolist()
    everyone = gather(ours, counts).flatten(0, 1)
    start = 2 * sum(counts[: rank()])
    rows = ours.flatten(0, 1)
    scores = rows @ everyone.T / temperature
    own = torch.arange(len(rows), device=rows.device)
    others = scores.index_put((own, start + own), scores.new_tensor(float("-inf")))
    # a row's partner stands beside it
    partner = scores[own, start + (own ^ 1)]
    return (others.logsumexp(1) - partner).reshape(-1, 2).mean(1)


def _loss(per_pair: Tensor, logs: dict[str, Tensor]) -> Loss:
    """The mean of each pair's loss over all ranks, and the means of what is logged ``[n]`` likewise."""
    sums = [per_pair.sum(), *(value.sum() for value in logs.values())]
    parts = total(torch.stack([*sums, sums[0].new_tensor(len(per_pair))]).double())
    pairs = parts[-1].clamp(min=1)
    means = (parts / pairs).tolist()
    return Loss(
        share=sums[0] / pairs.to(sums[0]),
        value=(parts[0] / pairs).to(sums[0]),
        per_query=per_pair.detach(),
        logs=dict(zip(logs, means[1:-1], strict=True)),
    )
