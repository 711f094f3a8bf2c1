"""The targets of each query that may be among its k best, collected from scores that are known within bounds.

Shapes: Q queries, B targets of a block, C places for each query.
"""

import torch
from torch import Tensor

_GROUP = 32


class Shortlist:
    """Targets whose score may reach the k-th best.

    A query whose targets do not fit in its places, because too many are too close, overflows and collects no more.

    Args:
        num_queries: Q.
        k: how many targets a query gets.
        device: of the scores.
    """

    def __init__(self, num_queries: int, k: int, device: torch.device) -> None:
        self.k = k
        places = num_queries, room(k)
        self.columns = torch.zeros(places, dtype=torch.int64, device=device)
        """Rows of the corpus ``[Q, C]``."""
        self.filled = torch.zeros(num_queries, dtype=torch.int64, device=device)
        """How many places of each query are in use ``[Q]``."""
        self.overflowed = torch.zeros(num_queries, dtype=torch.bool, device=device)
        """Queries to be ranked some other way ``[Q]``."""
        self._lower = torch.full(places, -torch.inf, dtype=torch.float64, device=device)
        self._upper = self._lower.clone()
        # so many targets were seen when all queries' least was found
        self._seen = 0
        # k targets seen so far reach it
        self._least = torch.full((num_queries,), -torch.inf, dtype=torch.float64, device=device)

    def add(self, scores: Tensor, bounds: Tensor, rounding: float, first: int) -> None:
        """Collect from a block.

        Args:
            scores: ``[Q, B]``; the type's least number marks targets that are out.
            bounds: by how much a query's scores may be wrong ``[Q]``, float64.
            rounding: by what part of itself a score may be wrong beyond that.
            first: row of the corpus of the block's first target.
        """
        left = torch.arange(len(scores), device=scores.device)
        # the first block is all hits: what is best in it is known for less than the list of them
        if first or scores.shape[1] <= self.columns.shape[1]:
            left = self._insert(left, scores, bounds, rounding, first)
        if len(left):
            scores, bounds = scores[left], bounds[left]
            self._tighten(left, scores, bounds, rounding)
            left = self._insert(left, scores, bounds, rounding, first)
            self.overflowed[left] = True
            self._least[left] = torch.inf
        seen = first + scores.shape[1]
        if seen >= 2 * self._seen:
            # so that each doubling of what is seen adds about k targets
            self._tighten_all()
            self._seen = seen

    def pairs(self) -> tuple[Tensor, Tensor]:
        """Queries and places of what is left at the end, without what cannot reach the k-th best after all."""
        self._tighten_all()
        places = torch.arange(self.columns.shape[1], device=self.filled.device)
        used = (places < self.filled[:, None]) & ~self.overflowed[:, None]
        queries, places = used.nonzero(as_tuple=True)
        return queries, places

    def _insert(self, queries: Tensor, scores: Tensor, bounds: Tensor, rounding: float, first: int) -> Tensor:
        """Append what may be among the best; returns the queries with too much of it, whose targets were left out."""
        rows, columns = _at_least(scores, _cutoff(self._least[queries] - bounds, rounding, scores.dtype))
        counts = torch.bincount(rows, minlength=len(queries))
        filled = self.filled[queries]
        fits = filled + counts <= self.columns.shape[1]
        places = filled[rows] + torch.arange(len(rows), device=rows.device) - (counts.cumsum(0) - counts)[rows]
        kept = fits[rows]
        rows, columns, places = rows[kept], columns[kept], places[kept]
        own, found = queries[rows], scores[rows, columns].double()
        margin = bounds[rows] + found.abs() * rounding
        self.columns[own, places] = columns + first
        self._lower[own, places] = found - margin
        self._upper[own, places] = found + margin
        self.filled[queries] = torch.where(fits, filled + counts, filled)
        return queries[~fits]

    def _tighten_all(self) -> None:
        everyone = torch.arange(len(self.filled), device=self.filled.device)
        self._tighten(everyone, self._lower[:, :0], self._least, 0.0)

    def _tighten(self, queries: Tensor, scores: Tensor, bounds: Tensor, rounding: float) -> None:
        """Find what k of the collected and the given targets reach, and drop the collected ones that do not."""
        found = scores.double()
        lower = torch.cat([self._lower[queries], found - bounds[:, None] - found.abs() * rounding], dim=1)
        least = lower.topk(self.k, dim=1).values[:, -1].maximum(self._least[queries])
        self._least[queries] = least
        upper = self._upper[queries]
        kept = (upper >= least[:, None]) & (upper > -torch.inf)
        order = kept.byte().sort(dim=1, descending=True, stable=True).indices
        for table in (self._lower, self._upper):
            table[queries] = table[queries].masked_fill(~kept, -torch.inf).gather(1, order)
        self.columns[queries] = self.columns[queries].gather(1, order)
        self.filled[queries] = kept.sum(1)


def room(k: int) -> int:
    """C: places for each query's targets."""
    return 8 * k + 64


def _cutoff(least: Tensor, rounding: float, dtype: torch.dtype) -> Tensor:
    """The lowest score ``[Q]`` that may stand for ``least``, in the type of the scores, rounded down."""
    cutoff = torch.where(least >= 0, least / (1 + rounding), least / (1 - rounding)).to(dtype)
    below = torch.nextafter(cutoff, torch.full_like(cutoff, -torch.inf))
    # above the number that marks what is out
    out = torch.full_like(cutoff, torch.finfo(dtype).min)
    return below.maximum(torch.nextafter(out, torch.zeros_like(out)))


def _at_least(scores: Tensor, cutoff: Tensor) -> tuple[Tensor, Tensor]:
    """Rows, ascending, and columns of the scores that reach their row's cutoff."""
    num_rows, num_columns = scores.shape
    if num_columns % _GROUP:
        rows, columns = (scores >= cutoff[:, None]).nonzero(as_tuple=True)
        return rows, columns
    # few reach it: the largest of each group of scores says which are worth a look
    groups = scores.view(num_rows, _GROUP, num_columns // _GROUP)
    rows, group = (groups.amax(1) >= cutoff[:, None]).nonzero(as_tuple=True)
    hit, member = (groups[rows, :, group] >= cutoff[rows, None]).nonzero(as_tuple=True)
    return rows[hit], group[hit] + member * groups.shape[2]
