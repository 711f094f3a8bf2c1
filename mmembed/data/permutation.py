"""A shuffled order that is computed, not stored: Feistel network with cycle walking (Black and Rogaway 2002)."""

import math
from dataclasses import dataclass

from mmembed.files import fingerprint

_ROUNDS = 8
_MASK = (1 << 64) - 1


@dataclass(frozen=True)
class Permutation:
    """A bijection of ``range(size)`` named by a key; ``permutation(i)`` needs no memory and no earlier values.

    Args:
        size: how many indices there are.
        key: 64 bits that choose the permutation; see :func:`key_of`.
    """

    size: int
    key: int

    def __call__(self, index: int) -> int:
        """Where ``index`` goes.

        The network permutes a grid of ``side * side >= size`` cells. A cell outside the range is sent through again
        until it lands inside, which takes less than two extra rounds on average whatever the index.
        """
        side = math.isqrt(self.size - 1) + 1 if self.size > 1 else 1
        while True:
            index = self._network(index, side)
            if index < self.size:
                return index

    def _network(self, index: int, side: int) -> int:
        left, right = divmod(index, side)
        for number in range(_ROUNDS):
            left, right = right, (left + _scramble(self.key + right * _ROUNDS + number)) % side
        return left * side + right


def key_of(*parts: str | int) -> int:
    """64 bits that name these parts, the same on every machine and in every process."""
    return int(fingerprint(*map(str, parts))[:16], 16)


def _scramble(value: int) -> int:
    """The output function of SplitMix64 (Steele, Lea and Flood 2014)."""
    value = (value * 0x9E3779B97F4A7C15) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)
