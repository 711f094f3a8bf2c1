"""Scores as integers that rank by (-score, index): equal scores have one defined order."""

import torch
from torch import Tensor

_INDEX_BITS = 31
_MAX_INDEX = (1 << _INDEX_BITS) - 1
LATE = 1 << _INDEX_BITS
"""What is taken off a key that comes after all others of equal score."""


def keys_of(scores: Tensor, columns: Tensor) -> Tensor:
    """One integer a score, larger is better: the score's bits, one bit for ties, the index counted backwards.

    Integers are all different, so that any top-k of them is stable and blocks merge without looking at ties.

    Args:
        scores: float32, of any shape.
        columns: the row of the corpus of each; broadcasts.
    """
    # adding zero turns -0.0 into 0.0, which must tie
    bits = (scores + 0.0).view(torch.int32).long()
    # the bits of a negative float grow as it falls
    ordered = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    return (ordered << (_INDEX_BITS + 1)) + LATE + (_MAX_INDEX - columns)


def unpack(keys: Tensor) -> tuple[Tensor, Tensor]:
    """Scores and rows of the corpus; ``-inf`` and -1 of empty places."""
    ordered = keys >> (_INDEX_BITS + 1)
    bits = torch.where(ordered < 0, ordered ^ 0x7FFFFFFF, ordered)
    scores = bits.int().view(torch.float32)
    indices = _MAX_INDEX - (keys & _MAX_INDEX)
    return scores, indices.masked_fill(keys == nothing(), -1)


def nothing() -> int:
    """The key of an empty place: the score -inf, which no finite product reaches."""
    bits = int(torch.tensor(-torch.inf).view(torch.int32))
    return (bits ^ 0x7FFFFFFF) << (_INDEX_BITS + 1)
