"""Which targets are negatives of which queries, for any block of them.

A block is R queries of the global batch by N targets of one rank. The rules of a pair's source decide for it: towards
targets those of the query, towards queries those of the positive's owner.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mmembed.losses.global_batch import Answers, GlobalBatch, Queries, Targets
from mmembed.losses.settings import Scope


def own(queries: Queries, targets: Targets) -> Tensor:
    """True ``[R, N]`` where the target came with the query."""
    return queries.numbers[:, None] == targets.owners.numbers


def duplicates(queries: Queries, targets: Targets, answers: Answers) -> Tensor:
    """True ``[R, N]`` where a target answers the query by its content.

    It equals one of the query's positives, or it is a positive of a query of equal content. For a positive and
    another query the same relation reads: that query would be answered by it.
    """
    equal_query = (queries.keys[:, None] == targets.owners.keys) & targets.positive
    return equal_query | answers.held(queries.numbers, targets.contents)


def of_one_class(queries: Queries, targets: Targets) -> Tensor:
    """True ``[R, N]`` where a target answers a query of the same class; pairs without a class are of none.

    Hard negatives stay: what is wrong for a query is wrong for its class.
    """
    same = queries.classes[:, None] == targets.owners.classes
    return same & (queries.classes >= 0)[:, None] & targets.positive


def above(cosines: Tensor, limits: Tensor) -> Tensor:
    """True ``[R, N]`` where a target is closer to the query than its limit, strictly."""
    return cosines.detach() > limits


@dataclass(frozen=True)
class Rules:
    """What each source decides for its pairs, by number of the source.

    Args:
        scopes: whose targets its queries are compared with.
        classes: whether positives of the same class are masked.
    """

    scopes: Sequence[Scope]
    classes: Sequence[bool]

    @property
    def everywhere(self) -> bool:
        """Whether all sources compare with the whole batch."""
        return all(scope == "batch" for scope in self.scopes)

    def in_scope(self, deciding: Tensor, other: Tensor) -> Tensor:
        """Whether pairs of the deciding sources are compared with those of the others; shapes broadcast."""
        everywhere, at_home = (self._where(scope, deciding) for scope in ("batch", "source"))
        return everywhere | (at_home & (deciding == other))

    def masks_classes(self, deciding: Tensor) -> Tensor:
        """Whether the deciding sources mask their classes."""
        return torch.tensor(list(self.classes), device=deciding.device)[deciding]

    def _where(self, scope: str, deciding: Tensor) -> Tensor:
        return torch.tensor([one == scope for one in self.scopes], device=deciding.device)[deciding]


@dataclass(frozen=True)
class Negatives:
    """The conjunction of all that makes a target a negative.

    Args:
        rules: of the sources.
        share_negatives: whether a query sees the hard negatives of others.
        mask_duplicates: whether :func:`duplicates` are no negatives.
    """

    rules: Rules
    share_negatives: bool
    mask_duplicates: bool

    def of_queries(self, queries: Queries, targets: Targets, answers: Answers) -> tuple[Tensor, Tensor]:
        """Targets that each query is compared with as negatives, and what masks take out ``[R, N]``.

        Own hard negatives are always compared, own positives never.
        """
        return self.compared_queries(queries, targets), self.masked_queries(queries, targets, answers)

    def compared_queries(self, queries: Queries, targets: Targets) -> Tensor:
        """The first table of :meth:`of_queries`."""
        if self.rules.everywhere and self.share_negatives:
            return queries.numbers[:, None] != torch.where(targets.positive, targets.owners.numbers, -1)
        mine = own(queries, targets)
        others = self.rules.in_scope(queries.sources[:, None], targets.owners.sources)
        if not self.share_negatives:
            others = others & targets.positive
        return torch.where(mine, ~targets.positive, others)

    def masked_queries(self, queries: Queries, targets: Targets, answers: Answers) -> Tensor:
        """The second table of :meth:`of_queries`."""
        return self._masked(queries, targets, answers, queries.sources[:, None])

    def of_positives(self, queries: Queries, targets: Targets, answers: Answers) -> tuple[Tensor, Tensor]:
        """The mirror: queries that each positive is compared with as negatives, and what masks take out ``[R, N]``.

        Hard negatives have no query to find and take no part.
        """
        return self.compared_positives(queries, targets), self.masked_positives(queries, targets, answers)

    def compared_positives(self, queries: Queries, targets: Targets) -> Tensor:
        """The first table of :meth:`of_positives`."""
        compared = targets.positive & ~own(queries, targets)
        if self.rules.everywhere:
            return compared
        return compared & self.rules.in_scope(targets.owners.sources, queries.sources[:, None])

    def masked_positives(self, queries: Queries, targets: Targets, answers: Answers) -> Tensor:
        """The second table of :meth:`of_positives`."""
        return self._masked(queries, targets, answers, targets.owners.sources)

    def may_be_masked(self, batch: GlobalBatch, rows: slice) -> Tensor:
        """Those of the rows, counted from the first, in which masks may take out what is compared.

        Elsewhere they hold nothing but own positives, and need not be built.
        """
        queries = batch.queries[rows]
        found = torch.zeros_like(queries.numbers, dtype=torch.bool)
        if self.mask_duplicates:
            found = found | batch.repeated[rows]
        if any(self.rules.classes):
            found = found | (queries.classes >= 0)
        return found.nonzero()[:, 0]

    def _masked(self, queries: Queries, targets: Targets, answers: Answers, deciding: Tensor) -> Tensor:
        masked = torch.zeros(len(queries.keys), len(targets.positive), dtype=torch.bool, device=queries.keys.device)
        if self.mask_duplicates:
            masked = masked | duplicates(queries, targets, answers)
        if any(self.rules.classes):
            masked = masked | (of_one_class(queries, targets) & self.rules.masks_classes(deciding))
        return masked
