"""How the tokens of rows, flat everywhere else, lie when they pass a language model: padded or packed."""

from functools import cached_property
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor


class TokenLayout(Protocol):
    """The map between flat tokens ``[T, ...]`` and the block that a language model takes: :class:`Padding`, Packing."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the block."""

    @property
    def longest(self) -> int:
        """Tokens of the longest row."""

    @property
    def is_dense(self) -> bool:
        """Whether every place of the block holds a token."""

    @property
    def rows(self) -> Tensor:
        """Which row each token belongs to ``[T]``."""

    @property
    def columns(self) -> Tensor:
        """In which column of the block each token lies ``[T]``."""

    @property
    def segments(self) -> dict[str, Any]:
        """Where rows begin and end inside the block, as arguments of the model's attention; empty with one row a line.

        The names are those by which transformers hands them to FlashAttention.
        """

    def pad(self, flat: Tensor) -> Tensor:
        """Flat tokens as a block."""

    def unpad(self, block: Tensor) -> Tensor:
        """A block as flat tokens."""

    def columns_at(self, places: Tensor) -> Tensor:
        """Where the token at a place of each row ``[B]`` stands in the block ``[B]``."""

    def mask(self) -> Tensor:
        """Which places of the block hold a token."""


class Packing:
    """The map between flat tokens ``[T, ...]`` and a block of one line ``[1, T, ...]``, row behind row.

    Args:
        lengths: tokens of each row.
        kernel: whether attention is computed by torch's kernel for rows of different lengths.
    """

    is_dense = True

    def __init__(self, lengths: Tensor, *, kernel: bool = False) -> None:
        self.lengths = lengths
        self.longest = int(lengths.max())
        self.shape = (1, int(lengths.sum()))
        ends = F.pad(lengths.cumsum(0, dtype=torch.int32), (1, 0))
        self.segments: dict[str, Any] = {
            "cu_seq_lens_q": ends,
            "cu_seq_lens_k": ends,
            "max_length_q": self.longest,
            "max_length_k": self.longest,
            "varlen_kernel": kernel,
        }

    @cached_property
    def rows(self) -> Tensor:
        """See :class:`TokenLayout`."""
        return torch.repeat_interleave(torch.arange(len(self.lengths), device=self.lengths.device), self.lengths)

    @cached_property
    def columns(self) -> Tensor:
        """See :class:`TokenLayout`."""
        return torch.arange(self.shape[1], device=self.lengths.device)

    def pad(self, flat: Tensor) -> Tensor:
        """``[T, ...] -> [1, T, ...]``."""
        return flat[None]

    def unpad(self, block: Tensor) -> Tensor:
        """``[1, T, ...] -> [T, ...]``."""
        return block[0]

    def columns_at(self, places: Tensor) -> Tensor:
        """See :class:`TokenLayout`."""
        return self.lengths.cumsum(0) - self.lengths + places

    def mask(self) -> Tensor:
        """All of ``[1, T]``."""
        return torch.ones(self.shape, dtype=torch.bool, device=self.lengths.device)


class Padding:
    """The map between flat tokens ``[T, ...]`` and a padded block ``[B, L, ...]``."""

    def __init__(self, lengths: Tensor, side: str = "right") -> None:
        rows, longest = len(lengths), int(lengths.max())
        self.shape = (rows, longest)
        self.longest = longest
        self.segments: dict[str, Any] = {}
        self.is_dense = bool((lengths == longest).all())
        self.rows = torch.repeat_interleave(torch.arange(rows, device=lengths.device), lengths)
        starts = lengths.cumsum(0) - lengths
        columns = torch.arange(len(self.rows), device=lengths.device) - starts[self.rows]
        self.columns = columns + (longest - lengths)[self.rows] if side == "left" else columns

    def pad(self, flat: Tensor) -> Tensor:
        """``[T, ...] -> [B, L, ...]`` with zeros where a row is short."""
        if self.is_dense:
            return flat.view(*self.shape, *flat.shape[1:])
        block = flat.new_zeros(*self.shape, *flat.shape[1:])
        return block.index_put((self.rows, self.columns), flat)

    def unpad(self, block: Tensor) -> Tensor:
        """``[B, L, ...] -> [T, ...]``."""
        return block.flatten(0, 1) if self.is_dense else block[self.rows, self.columns]

    def columns_at(self, places: Tensor) -> Tensor:
        """Where the token at a place of each row ``[B]`` stands in the block ``[B]``."""
        lengths = torch.bincount(self.rows, minlength=self.shape[0])
        return self.columns[lengths.cumsum(0) - lengths + places]

    def mask(self) -> Tensor:
        """Which places of the block hold a token ``[B, L]``."""
        return self.pad(torch.ones_like(self.rows, dtype=torch.bool))
