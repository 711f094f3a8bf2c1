"""Which rows make the global batch of a step: a pure function of (seed, step), without state or index arrays.

The plan of a run is a row of blocks, each of one source. Every ``window`` blocks hold each source as often as its
share says, the rounding error carried to the next window. The plan is cut into batches: place ``i`` of batch ``b`` is
position ``b * batch_size + i`` of the plan, so a block may begin in one batch and end in another. Each batch of the
plan gives the sources of ``hold`` steps in a row.

Because the number of rows that a source gave before a step is a closed form, so is the row of any position of any
step: resuming costs nothing, and workers and ranks need not talk.
"""

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping
from fractions import Fraction
from itertools import accumulate
from typing import NamedTuple

from mmembed.counters import count
from mmembed.data.permutation import Permutation, key_of
from mmembed.data.settings import Sampling
from mmembed.errors import InputError


class Row(NamedTuple):
    """A row of a source's table, counted from 0."""

    source: str
    row: int


class _Stretch(NamedTuple):
    """Positions of a batch that follow each other and lie in one block."""

    source: int
    length: int


class Sampler:
    """Rows of every step's global batch.

    A source is walked epoch by epoch: each row once, in an order shuffled anew for each epoch. A block may cross an
    epoch, and one of a source smaller than the block holds rows more than once.

    Args:
        sizes: rows of each source; the order of the sources is part of the scheme.
        weights: of each source; only ratios count, ``0.1`` means exactly one tenth, and 0 switches a source off.
        sampling: batch, blocks and shares.
        seed: another seed, another order.

    Raises:
        InputError: no source, a source without rows, a weight that is negative or not finite, weights that sum to
            zero, or sizes and weights that name different sources.
    """

    def __init__(
        self, sizes: Mapping[str, int], weights: Mapping[str, float], sampling: Sampling, *, seed: int
    ) -> None:
        _check(sizes, weights)
        self.sizes = dict(sizes)
        self.sampling = sampling
        self.seed = seed
        self._plan = sampling.resolved
        self._weights = {name: Fraction(str(weights[name])) for name in sizes if weights[name]}
        if sampling.shares == "rows":
            self._weights = {name: weight * sizes[name] for name, weight in self._weights.items()}
        self._names = list(self._weights)
        self._shares_of_rest = _shares_of_rest(list(self._weights.values()))

    @property
    def shares(self) -> dict[str, float]:
        """What part of all rows each source gives, 0 where it is switched off; they sum to 1."""
        total = sum(self._weights.values())
        return {name: float(self._weights.get(name, 0) / total) for name in self.sizes}

    def rows(self, step: int) -> list[Row]:
        """The rows of a step's global batch, in order: ``batch_size`` of them."""
        drawn = self._drawn(step)
        rows = []
        for source, length in self._pattern(step // self._plan.hold):
            rows += [self._row(source, drawn[source] + i) for i in range(length)]
            drawn[source] += length
        return rows

    def composition(self, first_step: int, steps: int) -> Counter[str]:
        """How many rows each source gives to the ``steps`` steps from ``first_step`` on, whatever their number."""
        before, after = self._drawn(first_step), self._drawn(first_step + steps)
        return Counter(
            {name: end - start for name, start, end in zip(self._names, before, after, strict=True) if end > start}
        )

    def _drawn(self, step: int) -> list[int]:
        """Rows that each source gave to the steps before ``step``."""
        batch, turn = divmod(step, self._plan.hold)
        start, end = (self._planned(number * self._plan.batch_size) for number in (batch, batch + 1))
        return [self._plan.hold * a + turn * (b - a) for a, b in zip(start, end, strict=True)]

    def _planned(self, position: int) -> list[int]:
        """Rows of each source among the first ``position`` of the plan."""
        block, inside = divmod(position, self._plan.block_size)
        window, slot = divmod(block, self._plan.window)
        order = self._order(window)
        in_window = Counter(order[:slot])
        blocks = [before + in_window[source] for source, before in enumerate(self._blocks_before(window))]
        rows = [number * self._plan.block_size for number in blocks]
        rows[order[slot]] += inside
        return rows

    def _pattern(self, batch: int) -> list[_Stretch]:
        """The stretches of a batch of the plan, in order."""
        size = self._plan.block_size
        start, end = batch * self._plan.batch_size, (batch + 1) * self._plan.batch_size
        blocks = range(start // size, (end - 1) // size + 1)
        windows = range(blocks[0] // self._plan.window, blocks[-1] // self._plan.window + 1)
        orders = {window: self._order(window) for window in windows}
        stretches = []
        for block in blocks:
            window, slot = divmod(block, self._plan.window)
            length = min(end, (block + 1) * size) - max(start, block * size)
            stretches.append(_Stretch(orders[window][slot], length))
        return stretches

    def _order(self, window: int) -> list[int]:
        """The source of each block of a window, in order."""
        before, after = self._blocks_before(window), self._blocks_before(window + 1)
        ends = list(accumulate(end - start for start, end in zip(before, after, strict=True)))
        shuffle = self._permutation(self._plan.window, "window", window)
        count("sampler_operations", self._plan.window)
        return [bisect_right(ends, shuffle(slot)) for slot in range(self._plan.window)]

    def _blocks_before(self, window: int) -> list[int]:
        """How many blocks each source had before a window.

        Source s takes its share w_s / (w_s + ... + w_last) of what the sources before it left, rounded to the nearest
        integer; the last share is 1, so the counts add up. They never fall from one window to the next: with a share
        of at most 1, a ``left`` one larger raises ``floor(left * share + 1/2)`` by 0 or 1, and so also what it leaves.
        """
        left = window * self._plan.window
        counts = []
        for share in self._shares_of_rest:
            counts.append((2 * left * share.numerator + share.denominator) // (2 * share.denominator))
            left -= counts[-1]
        count("sampler_operations", len(counts))
        return counts

    def _row(self, source: int, position: int) -> Row:
        """The row that a source gives when it gave ``position`` of them before."""
        name = self._names[source]
        epoch, index = divmod(position, self.sizes[name])
        count("sampler_operations")
        return Row(name, self._permutation(self.sizes[name], "rows", name, epoch)(index))

    def _permutation(self, size: int, *names: str | int) -> Permutation:
        return Permutation(size, key_of(self.seed, *names))


def _shares_of_rest(weights: list[Fraction]) -> list[Fraction]:
    """Each weight over the sum of itself and those after it."""
    return [weight / sum(weights[i:]) for i, weight in enumerate(weights)]


def _check(sizes: Mapping[str, int], weights: Mapping[str, float]) -> None:
    if not sizes:
        raise InputError("mixture", expected="at least one source", got="none", remedy="name a table")
    if set(sizes) != set(weights):
        raise InputError(
            "mixture", expected=f"weights of {sorted(sizes)}", got=sorted(weights), remedy="weigh every source"
        )
    for name, weight in weights.items():
        if not (weight >= 0 and math.isfinite(weight)):
            where = f"mixture.{name}.weight"
            raise InputError(where, expected="a positive number, or 0", got=weight, remedy="0 switches the source off")
    if not any(weights.values()):
        got = f"weights that sum to zero, of {', '.join(sizes)}"
        raise InputError("mixture", expected="a source with weight", got=got, remedy="give one of them a weight")
    for name, size in sizes.items():
        if weights[name] and size < 1:
            raise InputError(f"mixture.{name}", expected="at least one row", got=size, remedy="leave the source out")
