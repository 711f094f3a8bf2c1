"""Poolers: hidden states of a batch, flat, to one vector a row."""

from typing import Literal

import torch
from torch import Tensor, nn

from mmembed.models.prompts import Kind
from mmembed.models.sequence import Hidden


class Pooler(nn.Module):
    """Hidden -> ``[B, D]``."""

    def forward(self, hidden: Hidden) -> Tensor:
        """Pool; see the concrete poolers."""
        raise NotImplementedError


class LastTokenPooler(Pooler):
    """The last real token's state (arXiv:2401.00368; VLM2Vec)."""

    def forward(self, hidden: Hidden) -> Tensor:
        """Hidden -> ``[B, D]``."""
        return hidden.states[hidden.lengths.cumsum(0) - 1]


class MeanTokenPooler(Pooler):
    """The mean over a row's tokens, in float32; the instruction's tokens left out on the sides named.

    A row that is nothing but instruction keeps all its tokens, for a mean over none does not exist.
    """

    def __init__(self, drop_instruction: Literal["none", "query", "target", "both"]) -> None:
        super().__init__()
        self.drop_on_query = drop_instruction in ("query", "both")
        self.drop_on_target = drop_instruction in ("target", "both")

    def forward(self, hidden: Hidden) -> Tensor:
        """Hidden -> ``[B, D]``."""
        rows = torch.repeat_interleave(torch.arange(len(hidden.lengths), device=hidden.states.device), hidden.lengths)
        dropping = torch.where(hidden.is_query, self.drop_on_query, self.drop_on_target)[rows]
        kept = ~(dropping & (hidden.kinds == Kind.INSTRUCTION))
        count = torch.zeros_like(hidden.lengths).index_add(0, rows, kept.long())
        kept = kept | (count == 0)[rows]
        count = torch.where(count == 0, hidden.lengths, count)
        states = hidden.states.float() * kept[:, None]
        total = states.new_zeros(len(count), states.shape[1]).index_add(0, rows, states)
        return total / count[:, None]
