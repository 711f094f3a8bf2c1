"""What a rank knows of the global batch: the attributes of all queries, and those of its own targets.

Shapes: G queries on all ranks, B of this rank; N targets of this rank; P positives on all ranks.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from mmembed.errors import InputError
from mmembed.losses.candidates import Candidates
from mmembed.losses.gather import gather, rank, world


@dataclass(frozen=True)
class Queries:
    """Attributes of some queries, one number each.

    Args:
        numbers: which query of the global batch.
        keys: content.
        classes: class of the pair, -1 without one.
        sources: source of the pair.
    """

    numbers: Tensor
    keys: Tensor
    classes: Tensor
    sources: Tensor

    def __getitem__(self, chosen: slice | Tensor) -> "Queries":
        """The chosen queries."""
        return Queries(self.numbers[chosen], self.keys[chosen], self.classes[chosen], self.sources[chosen])


@dataclass(frozen=True)
class Answers:
    """What the positives of the global batch contain, and whose they are; contents are numbered from 0.

    Args:
        owners: query of the global batch that each positive answers ``[P]``.
        contents: content of each positive ``[P]``.
        keys: of all positives in ascending order ``[P]``; the number of a content is the first place of its key.
    """

    owners: Tensor
    contents: Tensor
    keys: Tensor

    @classmethod
    def of(cls, owners: Tensor, keys: Tensor) -> "Answers":
        """Number the contents of positives ``[P]``."""
        ordered = keys.sort().values
        return cls(owners, torch.searchsorted(ordered, keys), ordered)

    def contents_of(self, keys: Tensor) -> Tensor:
        """The number of each key's content; P where no positive has it."""
        places = torch.searchsorted(self.keys, keys)
        known = self.keys[places.clamp(max=len(self.keys) - 1)] == keys
        return torch.where(known, places, len(self.keys))

    def held(self, numbers: Tensor, contents: Tensor) -> Tensor:
        """True ``[R, N]`` where a query has a positive of that content.

        Args:
            numbers: queries of the global batch in ascending order ``[R]``.
            contents: as :meth:`contents_of` numbers them ``[N]``.
        """
        rows = torch.searchsorted(numbers, self.owners)
        # positives of other queries fall into a last row, contents that answer nobody into a last column
        rows = torch.where(numbers[rows.clamp(max=len(numbers) - 1)] == self.owners, rows, len(numbers))
        table = torch.zeros(len(numbers) + 1, len(self.keys) + 1, dtype=torch.bool, device=rows.device)
        table[rows, self.contents] = True
        return table[:-1].index_select(1, contents)


@dataclass(frozen=True)
class Targets:
    """Attributes of this rank's targets.

    Args:
        owners: the query that each came with.
        positive: whether it answers its owner ``[N]``.
        contents: number of its content among the answers ``[N]``.
    """

    owners: Queries
    positive: Tensor
    contents: Tensor


@dataclass(frozen=True)
class GlobalBatch:
    """The queries of all ranks and the targets of this one.

    Args:
        queries: of all ranks, in rank order ``[G]``.
        query_counts: queries of each rank.
        targets: of this rank.
        target_count: targets of all ranks.
        answers: the positives of all ranks.
        own: the rows of ``queries`` that are this rank's.
        repeated: queries that may have duplicates among this rank's targets, other than their own positives ``[G]``;
            all others have none.
    """

    queries: Queries
    query_counts: tuple[int, ...]
    targets: Targets
    target_count: int
    answers: Answers
    own: slice
    repeated: Tensor

    @classmethod
    def of(cls, candidates: Candidates) -> "GlobalBatch":
        """Exchange attributes with the other ranks.

        Raises:
            InputError: no rank has a query.
        """
        keys, device = candidates.query_keys, candidates.owner.device
        positives = candidates.positives
        mine = torch.tensor([[len(keys), len(candidates.owner), len(positives)]], device=device)
        counts = gather(mine, [1] * world()).tolist()
        query_counts, target_counts, answer_counts = zip(*counts, strict=True)
        if not sum(query_counts):
            raise InputError("batch", expected="at least one query", got="none on any rank", remedy="raise batch_size")
        first = sum(query_counts[: rank()])
        attributes = gather(torch.stack([keys, candidates.classes, candidates.sources], 1), query_counts)
        queries = Queries(torch.arange(len(attributes), device=device), *attributes.T.contiguous())
        owner = candidates.owner + first
        answering = gather(torch.stack([owner, candidates.target_keys], 1)[positives], answer_counts)
        answers = Answers.of(*answering.T.contiguous())
        targets = Targets(queries[owner], candidates.positive, answers.contents_of(candidates.target_keys))
        own = slice(first, first + len(keys))
        repeated = _repeated(queries, targets, answers, own)
        return cls(queries, query_counts, targets, sum(target_counts), answers, own, repeated)


def _repeated(queries: Queries, targets: Targets, answers: Answers, own: slice) -> Tensor:
    """True ``[G]`` for queries whose key another has, or whose positive's content is met more than once.

    The targets of a query are with it on one rank: there its positive is met once at least, elsewhere never.
    """
    _, numbers, counts = torch.unique(queries.keys, return_inverse=True, return_counts=True)
    met = torch.bincount(targets.contents, minlength=len(answers.keys) + 1)[answers.contents]
    here = (answers.owners >= own.start) & (answers.owners < own.stop)
    repeated: Tensor = counts[numbers] > 1
    repeated[answers.owners[met > here.long()]] = True
    return repeated
