"""What top-k ranks, checked as it is read."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mmembed.errors import InputError
from mmembed.index.products import largest_norm


class Corpus:
    """Targets in blocks. That all their numbers are finite shows in the norms of the first pass.

    Args:
        vectors: ``[N, D]``.
        block_rows: targets in a block.
    """

    def __init__(self, vectors: Tensor, block_rows: int) -> None:
        self.vectors, self.block_rows = vectors, block_rows
        self.starts = range(0, len(vectors), block_rows)
        self._largest: dict[int, float] = {}

    def block(self, first: int) -> Tensor:
        """The targets from one on ``[B, D]``."""
        return self.vectors[first : first + self.block_rows]

    def measured(self, first: int) -> tuple[Tensor, float]:
        """A block in float32, and a number that none of its norms exceeds; not finite where squares are too large.

        Raises:
            InputError: a number of the corpus is not finite.
        """
        block = self.block(first).float()
        if first not in self._largest:
            largest = largest_norm(block)
            if not math.isfinite(largest):
                _check_finite("corpus", self.vectors, self.block_rows)
            self._largest[first] = largest
        return block, self._largest[first]

    def check_rest(self) -> None:
        """Look at the blocks that no pass has read.

        Raises:
            InputError: a number of the corpus is not finite.
        """
        for first in self.starts:
            if first not in self._largest:
                self.measured(first)


def _check_finite(name: str, vectors: Tensor, block_rows: int) -> None:
    # in blocks: of a whole gallery at once it would take as much memory again
    finite = torch.cat([block.isfinite().all(dim=1) for block in torch.split(vectors, block_rows)])
    if not finite.all():
        raise InputError(
            f"top_k.{name}",
            expected="finite numbers",
            got=f"{int((~finite).sum())} rows with NaN or infinity, the first is row {int((~finite).nonzero()[0])}",
            remedy="look at the model's embedding of that row",
        )


def check(
    queries: Tensor,
    corpus: Tensor,
    k: int,
    block_rows: int,
    lists: Mapping[str, Sequence[Sequence[int]] | None],
) -> None:
    """Refuse what :func:`mmembed.index.topk.top_k` cannot rank; the corpus shows its numbers as it is read."""
    for name, number in (("k", k), ("block_rows", block_rows)):
        if number < 1:
            raise InputError(f"top_k.{name}", expected="at least 1", got=number, remedy="give a positive number")
    if queries.ndim != 2 or corpus.ndim != 2 or queries.shape[1] != corpus.shape[1]:
        raise InputError(
            "top_k",
            expected="queries [Q, D] and corpus [N, D] of one width",
            got=f"{list(queries.shape)} and {list(corpus.shape)}",
            remedy="embed both sides with one model",
        )
    _check_finite("queries", queries, block_rows)
    for name, rows in lists.items():
        _check_lists(name, rows, len(queries), len(corpus))


def _check_lists(name: str, lists: Sequence[Sequence[int]] | None, num_queries: int, num_targets: int) -> None:
    if lists is None:
        return
    if len(lists) != num_queries:
        raise InputError(
            f"top_k.{name}",
            expected=f"{num_queries} lists, one for each query",
            got=len(lists),
            remedy="give every query a list",
        )
    for query, rows in enumerate(lists):
        for row in rows:
            if not 0 <= row < num_targets:
                raise InputError(
                    f"top_k.{name}[{query}]",
                    expected=f"rows of the corpus, 0 to {num_targets - 1}",
                    got=row,
                    remedy="check the list",
                )
        if len(set(rows)) != len(rows):
            raise InputError(
                f"top_k.{name}[{query}]",
                expected="each row once",
                got=f"{len(rows) - len(set(rows))} repeated",
                remedy="drop the repeats",
            )
