"""Which rows make the global batch of a step: a pure function of (seed, step), without state or index arrays.

A batch is made of blocks of one source. Blocks are numbered through the run, and every ``window`` of them holds each
source as often as its weight says, the rounding error carried to the next window. Because the number of blocks that a
source had before a window is a closed form, so is the row of any position of any step: resuming costs nothing, and
workers and ranks need not talk.
"""

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


class Sampler:
    """Rows of every step's global batch.

    A source is walked epoch by epoch: each row once, in an order shuffled anew for each epoch. A block may cross an
    epoch, and one of a source smaller than the block holds rows more than once.

    Args:
        sizes: rows of each source; the order of the sources is part of the scheme.
        weights: share of each source; only ratios count, and ``0.1`` means exactly one tenth.
        batch_size: rows of the global batch of a step.
        block_size: consecutive rows of one source; divides ``batch_size``.
        window: blocks over which the shares of the sources are kept.
        seed: another seed, another order.

    Raises:
        InputError: no source, a source without rows or weight, sizes and weights that name different sources, or a
            batch that blocks do not fill.
    """

    def __init__(
        self,
        sizes: Mapping[str, int],
        weights: Mapping[str, float],
        batch_size: int,
        block_size: int,
        window: int,
        seed: int,
    ) -> None:
        _check(sizes, weights)
        self.sizes = dict(sizes)
        self.sampling = Sampling(batch_size, block_size, window)
        self.seed = seed
        self._names = list(sizes)
        self._shares = _shares_of_rest([Fraction(str(weights[name])) for name in self._names])

    def rows(self, step: int) -> list[Row]:
        """The rows of a step's global batch, in order: ``batch_size`` of them."""
        return [Row(source, row) for source, block in self._blocks(step) for row in self._block_rows(source, block)]

    def composition(self, first_step: int, steps: int) -> Counter[str]:
        """How many rows each source gives to the ``steps`` steps from ``first_step`` on."""
        sources = (source for step in range(first_step, first_step + steps) for source, _ in self._blocks(step))
        blocks = Counter(sources)
        return Counter({source: number * self.sampling.block_size for source, number in blocks.items()})

    def _blocks(self, step: int) -> list[tuple[str, int]]:
        """Source and number within the source of each block of a step."""
        per_step = self.sampling.batch_size // self.sampling.block_size
        return [self._block(step * per_step + i) for i in range(per_step)]

    def _block(self, number: int) -> tuple[str, int]:
        window, slot = divmod(number, self.sampling.window)
        before, after = self._blocks_before(window), self._blocks_before(window + 1)
        ends = list(accumulate(end - start for start, end in zip(before, after, strict=True)))
        shuffle = self._permutation(self.sampling.window, "window", window)
        sources = [bisect_right(ends, shuffle(i)) for i in range(self.sampling.window)]
        count("sampler_operations", self.sampling.window)
        # numbered as they come, so that a source ends an epoch before it begins the next
        source = sources[slot]
        return self._names[source], before[source] + sources[:slot].count(source)

    def _blocks_before(self, window: int) -> list[int]:
        """How many blocks each source had before a window.

        Source s takes its share w_s / (w_s + ... + w_last) of what the sources before it left, rounded to the nearest
        integer; the last share is 1, so the counts add up. They never fall from one window to the next: with a share
        of at most 1, a ``left`` one larger raises ``floor(left * share + 1/2)`` by 0 or 1, and so also what it leaves.
        """
        left = window * self.sampling.window
        counts = []
        for share in self._shares:
            counts.append((2 * left * share.numerator + share.denominator) // (2 * share.denominator))
            left -= counts[-1]
        count("sampler_operations", len(counts))
        return counts

    def _block_rows(self, source: str, block: int) -> list[int]:
        size, length = self.sizes[source], self.sampling.block_size
        rows = []
        for position in range(block * length, (block + 1) * length):
            epoch, index = divmod(position, size)
            rows.append(self._permutation(size, "rows", source, epoch)(index))
        count("sampler_operations", length)
        return rows

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
    for name, size in sizes.items():
        if size < 1:
            raise InputError(f"mixture.{name}", expected="at least one row", got=size, remedy="leave the source out")
    for name, weight in weights.items():
        if not weight > 0:
            where = f"mixture.{name}.weight"
            raise InputError(where, expected="a positive number", got=weight, remedy="leave the source out")
