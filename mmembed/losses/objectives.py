"""Contrastive objectives over the embeddings of a whole batch."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mmembed.losses.blocks import EXCLUDED, Similarities, logsumexp, partition
from mmembed.losses.candidates import Candidates
from mmembed.losses.gather import gather, total, world
from mmembed.losses.global_batch import GlobalBatch
from mmembed.losses.negatives import Negatives, Rules, own
from mmembed.losses.settings import Contrastive, SourceRules
from mmembed.losses.temperature import Temperatures


@dataclass(frozen=True)
class Loss:
    """The loss of a global batch as one rank sees it.

    Args:
        share: this rank's part, a number with gradient; the parts of all ranks sum to the loss.
        value: the loss over all ranks, a number, detached.
        per_query: query-to-target loss of this rank's queries ``[B]``, in nats, detached; with each positive on its
            own, the mean over a query's positives.
        logs: over all ranks. ``masked``: share of the queries by targets comparisons that masks took out;
            ``no_negative``: share of queries without any negative; ``temperature``, or one for each source.
    """

    share: Tensor
    value: Tensor
    per_query: Tensor
    logs: dict[str, float]


class Objective(nn.Module):
    """What every objective has besides its own way to a :class:`Loss`."""

    @property
    def learning_rate(self) -> float | None:
        """Learning rate of its parameters; None is the optimiser's."""
        return None

    def clamp(self) -> None:
        """Hold its parameters inside their bounds; call it after each optimiser step."""

    def excluded(self, candidates: Candidates) -> Tensor:
        """True ``[B, N]`` where a target of another query, or a hard negative, is no negative of the query."""
        return torch.zeros(len(candidates.query_keys), len(candidates.owner), dtype=torch.bool)


class ContrastiveObjective(Objective):
    """InfoNCE in blocks over all ranks; see :class:`mmembed.losses.settings.Contrastive`.

    The loss of a query is ``softplus(log-sum-exp of its negatives - log-sum-exp of its positives)``: cross-entropy,
    accurate also where it is nearly 0, and 0 without negatives. Each rank compares the queries of all ranks with its
    own targets, and the ranks exchange one number for each query.

    Args:
        settings: of the objective.
        rules: of each source by name; their order numbers the sources of :class:`Candidates`.
    """

    def __init__(self, settings: Contrastive, rules: Mapping[str, SourceRules]) -> None:
        super().__init__()
        self.settings = settings
        self.temperatures = Temperatures(settings.temperature, rules, settings.learn)
        scopes = [settings.in_batch if rule.in_batch is None else rule.in_batch for rule in rules.values()]
        classes = [settings.mask_classes if rule.mask_classes is None else rule.mask_classes for rule in rules.values()]
        self.negatives = Negatives(Rules(scopes, classes), settings.share_negatives, settings.mask_duplicates)

    @property
    def learning_rate(self) -> float | None:
        """Learning rate of the learned temperatures; None is the optimiser's."""
        return None if self.settings.learn is None else self.settings.learn.lr

    def clamp(self) -> None:
        """Hold the learned temperatures inside their bounds; call it after each optimiser step."""
        self.temperatures.clamp()

    def excluded(self, candidates: Candidates) -> Tensor:
        """True ``[B, N]`` where a target of another query, or a hard negative, is no negative of the query.

        What the margin takes out depends on embeddings and is not known here. For one process.
        """
        batch = GlobalBatch.of(candidates)
        queries = batch.queries[batch.own]
        compared, masked = self.negatives.of_queries(queries, batch.targets, batch.answers)
        return (~compared | masked) & ~(own(queries, batch.targets) & batch.targets.positive)

    def forward(self, queries: Tensor, targets: Tensor, candidates: Candidates) -> Loss:
        """The loss of the global batch; every rank must call it, and run its backward pass.

        Args:
            queries: unit-length embeddings of this rank's queries ``[B, D]``.
            targets: unit-length embeddings of its targets ``[N, D]``.
            candidates: who is who among them.

        Raises:
            InputError: no rank has a query.
        """
        with torch.autocast(queries.device.type, enabled=False):
            dtype = torch.promote_types(queries.dtype, torch.float32)
            return self._loss(queries.to(dtype), targets.to(dtype), candidates)

    def _loss(self, queries: Tensor, targets: Tensor, candidates: Candidates) -> Loss:
        batch, positives = GlobalBatch.of(candidates), candidates.positives
        owner = candidates.owner[positives]
        cosines = (queries[owner] * targets[positives]).sum(1)
        temperatures = self.temperatures().to(queries)
        scores = cosines / temperatures[candidates.sources[owner]]
        found = partition(
            Similarities(
                queries=gather(queries, batch.query_counts),
                targets=targets,
                temperatures=temperatures,
                limits=self._limits(cosines, owner, batch),
                batch=batch,
            ),
            self.negatives,
            both=self.settings.directions[1] > 0,
            block_rows=self.settings.block_rows,
        )
        negatives = logsumexp(gather(found.of_queries[None], [1] * world()), 0)[batch.own]
        share, per_query = self._towards_targets(scores, owner, negatives, batch)
        if found.of_positives is not None:
            losses = softplus(found.of_positives[positives] - scores)
            share = share + self.settings.directions[1] * losses.sum() / len(batch.answers.owners)

        # counts are summed as counts, and exactly: shares of all ranks need not add up to 1
        counts = torch.stack([found.masked, (negatives < EXCLUDED / 2).sum()])
        parts = total(torch.cat([share.detach()[None].double(), counts.double()]))
        _, masked, alone, *divisors = torch.cat([parts, temperatures.detach().double()]).tolist()
        everyone = len(batch.queries.numbers)
        logs = {"masked": masked / (everyone * batch.target_count), "no_negative": alone / everyone}
        return Loss(share, parts[0].to(share), per_query, logs | self.temperatures.logs(divisors))

    def _towards_targets(
        self, scores: Tensor, owner: Tensor, negatives: Tensor, batch: GlobalBatch
    ) -> tuple[Tensor, Tensor]:
        """This rank's share of the query-to-target term, and the loss of each of its queries ``[B]``.

        Args:
            scores: of its positives ``[P]``.
            owner: their queries ``[P]``.
            negatives: log-sum-exp over each query's negatives ``[B]``.
            batch: the global batch, over whose queries or positives the mean runs.
        """
        weight = self.settings.directions[0]
        if self.settings.positives == "log_sum":
            losses = softplus(negatives - logsumexp_by_owner(scores, owner, len(negatives)))
            return weight * losses.sum() / len(batch.queries.numbers), losses.detach()
        losses = softplus(negatives[owner] - scores)
        per_query = torch.zeros_like(negatives.detach()).index_add(0, owner, losses.detach())
        per_query = per_query / torch.bincount(owner, minlength=len(negatives))
        return weight * losses.sum() / len(batch.answers.owners), per_query

    def _limits(self, cosines: Tensor, owner: Tensor, batch: GlobalBatch) -> Tensor | None:
        """The cosine above which the margin masks a target, for each query of the global batch ``[G]``."""
        if self.settings.margin is None:
            return None
        best = _best(cosines.detach(), owner, batch.own.stop - batch.own.start)
        return gather(best, batch.query_counts) + self.settings.margin


def softplus(gap: Tensor) -> Tensor:
    """``log(1 + exp(gap))``, accurate at both ends."""
    return torch.logaddexp(gap, torch.zeros_like(gap))


def logsumexp_by_owner(scores: Tensor, owner: Tensor, queries: int) -> Tensor:
    """Log-sum-exp of the scores ``[P]`` of each owner ``[queries]``; each has at least one."""
    best = _best(scores.detach(), owner, queries)
    sums = torch.zeros_like(best).index_add(0, owner, (scores - best[owner]).exp())
    return best + sums.log()


def _best(values: Tensor, owner: Tensor, queries: int) -> Tensor:
    return values.new_full((queries,), float("-inf")).scatter_reduce(0, owner, values, "amax")
