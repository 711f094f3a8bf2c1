"""Poolers: hidden states of a batch, flat, to one vector a row."""

from collections.abc import Collection
from collections.abc import Sequence as SequenceOf
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmembed.errors import InputError
from mmembed.models.prompts import Kind
from mmembed.models.sequence import Hidden, Row, Sequence
from mmembed.models.settings import KindName

if TYPE_CHECKING:
    from mmembed.models.backbone import Backbone


class Pooler(nn.Module):
    """Hidden -> ``[B, D]``.

    Attributes:
        layers: the layers whose states it reads besides the last, counted as transformers does: 0 are the embeddings.
        out_width: numbers of a pooled vector; None is as many as a hidden state has.
    """

    layers: tuple[int, ...] = ()
    out_width: int | None = None

    def inject(self, sequence: Sequence, backbone: "Backbone") -> Sequence:
        """The sequence as the backbone is to run it: composers put pseudo-words in, all others change nothing.

        Args:
            sequence: of a batch, embedded, its regions filled.
            backbone: that gave it.
        """
        return sequence

    def check(self, row: Row) -> None:
        """Refuse a row that has no vector by it, while its item is still known.

        Raises:
            InputError: what the row lacks.
        """

    def facts(self) -> dict[str, str]:
        """What its vectors depend on besides weights and settings, by name: files that the settings name."""
        return {}

    def read_places(self, tokens: Sequence | Hidden) -> Tensor | None:
        """In each row the place of the one token whose last state it reads ``[B]``; None where it reads others.

        Args:
            tokens: of a batch.
        """
        return None

    def forward(self, hidden: Hidden) -> Tensor:
        """Pool; see the concrete poolers."""
        raise NotImplementedError


class OneTokenPooler(Pooler):
    """A pooler that reads one token of a row, and of the last layer alone."""

    def read_places(self, tokens: Sequence | Hidden) -> Tensor:
        """See :meth:`Pooler.read_places`."""
        raise NotImplementedError

    def forward(self, hidden: Hidden) -> Tensor:
        """Hidden -> ``[B, D]``."""
        if hidden.places is not None:
            return hidden.states
        return hidden.states[hidden.lengths.cumsum(0) - hidden.lengths + self.read_places(hidden)]


class LastTokenPooler(OneTokenPooler):
    """The last real token's state (arXiv:2401.00368; VLM2Vec)."""

    def read_places(self, tokens: Sequence | Hidden) -> Tensor:
        """See :meth:`Pooler.read_places`."""
        return tokens.lengths - 1


class BeforeTokenPooler(OneTokenPooler):
    """The state just before the first place where the template writes a token (LamRA, arXiv:2412.01720).

    The same token in the words of an item is not meant. What is said in the item may follow the place only under
    attention that is not causal.

    Args:
        word: the token as it is written.
        token: its id.
    """

    def __init__(self, word: str, token: int) -> None:
        super().__init__()
        self.word = word
        self.token = token

    def read_places(self, tokens: Sequence | Hidden) -> Tensor:
        """See :meth:`Pooler.read_places`.

        Raises:
            InputError: a row where the template does not write the token, or writes it first.
        """
        ids, lengths = tokens.ids, tokens.lengths
        starts = lengths.cumsum(0) - lengths
        rows = torch.repeat_interleave(torch.arange(len(lengths), device=lengths.device), lengths)
        meant = (ids == self.token) & (tokens.kinds == Kind.TEMPLATE)
        places = torch.arange(len(ids), device=ids.device).masked_fill(~meant, len(ids))
        first = torch.full_like(starts, len(ids)).scatter_reduce(0, rows, places, "amin")
        if bool(((first == len(ids)) | (first == starts)).any()):
            raise InputError(
                "pooler.token", expected=f"'{self.word}' in every prompt, behind another token", got="a row without it",
                remedy="let the prompt style write it, e.g. ChatPrompt with answer, or take LastToken",
            )  # fmt: skip
        return first - 1 - starts


class MeanTokenPooler(Pooler):
    """The mean over a row's tokens, in float32, without the kinds of tokens dropped on its side.

    A row of nothing but dropped tokens keeps all of them, for a mean over none does not exist.
    """

    def __init__(self, drop_on_query: Collection[KindName], drop_on_target: Collection[KindName]) -> None:
        super().__init__()
        self.drop_on_query = [Kind[name.upper()] for name in drop_on_query]
        self.drop_on_target = [Kind[name.upper()] for name in drop_on_target]

    def forward(self, hidden: Hidden) -> Tensor:
        """Hidden -> ``[B, D]``."""
        return segment_mean(hidden.states.float(), self.kept(hidden), hidden)

    def kept(self, hidden: Hidden) -> Tensor:
        """Which tokens take part ``[T]``; in every row at least one."""
        rows = hidden.rows
        dropped = torch.where(
            hidden.is_query[rows], _among(hidden.kinds, self.drop_on_query), _among(hidden.kinds, self.drop_on_target)
        )
        count = torch.zeros_like(hidden.lengths).index_add(0, rows, (~dropped).long())
        return ~dropped | (count == 0)[rows]


class LatentAttentionPooler(Pooler):
    """Tokens attend to learned latents, then pass a gated feed-forward layer, then the mean; all in float32.

    ``H1 = H + MHA(LN(H); LN(Z))``, ``H2 = H1 + FFN(LN(H1))`` and the mean over ``H2`` (NV-Embed, arXiv:2405.17428,
    section 3.1; the layers are the Perceiver's, arXiv:2103.03206). A token sees the latents and no other token, so
    no padding can matter.

    Args:
        width: D, numbers of a hidden state.
        latents: how many vectors are learned.
        heads: of the attention.
        head_width: numbers of a head.
        latent_width: numbers of a latent.
        mean: over which tokens.
    """

    expansion = 4

    def __init__(
        self, width: int, latents: int, heads: int, head_width: int, latent_width: int, mean: MeanTokenPooler
    ) -> None:
        super().__init__()
        self.heads = heads
        self.latents = nn.Parameter(torch.randn(latents, latent_width))
        self.token_norm = nn.LayerNorm(width)
        self.latent_norm = nn.LayerNorm(latent_width)
        self.queries = nn.Linear(width, heads * head_width, bias=False)
        self.keys_values = nn.Linear(latent_width, 2 * heads * head_width, bias=False)
        self.out = nn.Linear(heads * head_width, width, bias=False)
        self.feed_norm = nn.LayerNorm(width)
        self.feed_in = nn.Linear(width, 2 * self.expansion * width)
        self.feed_out = nn.Linear(self.expansion * width, width)
        self.mean = mean

    def forward(self, hidden: Hidden) -> Tensor:
        """Hidden -> ``[B, D]``."""
        with torch.autocast(hidden.states.device.type, enabled=False):
            states = hidden.states.float()
            states = states + self._attend(self.token_norm(states))
            values, gates = self.feed_in(self.feed_norm(states)).chunk(2, dim=-1)
            states = states + self.feed_out(values * F.gelu(gates))
            pooled: Tensor = self.mean(replace(hidden, states=states))
            return pooled

    def _attend(self, tokens: Tensor) -> Tensor:
        """What each token takes from the latents ``[T, D]``."""
        keys, values = self.keys_values(self.latent_norm(self.latents)).chunk(2, dim=-1)
        queries, keys, values = (
            # one batch of H heads: [N, H * W] -> [1, H, N, W]
            x.unflatten(-1, (self.heads, -1)).transpose(0, 1)[None]
            for x in (self.queries(tokens), keys, values)
        )
        found = F.scaled_dot_product_attention(queries, keys, values)
        taken: Tensor = self.out(found[0].transpose(0, 1).flatten(1))
        return taken


class MultiLayerPooler(Pooler):
    """``sum_l softmax(a)_l * pool(LN_l(H_l))`` over the layers named, in float32.

    The weights ``a`` begin equal.

    Args:
        width: D, numbers of a hidden state.
        layers: which hidden states, see :attr:`Pooler.layers`.
        pooler: of each of them.
    """

    def __init__(self, width: int, layers: SequenceOf[int], pooler: Pooler) -> None:
        super().__init__()
        self.layers = tuple(layers)
        self.out_width = pooler.out_width
        self.weights = nn.Parameter(torch.zeros(len(self.layers)))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in self.layers)
        self.pooler = pooler

    def forward(self, hidden: Hidden) -> Tensor:
        """Hidden -> ``[B, D]``."""
        with torch.autocast(hidden.states.device.type, enabled=False):
            pooled = [
                self.pooler(replace(hidden, states=norm(states.float())))
                for norm, states in zip(self.norms, hidden.layers, strict=True)
            ]
            mixed: Tensor = torch.tensordot(self.weights.softmax(0), torch.stack(pooled), dims=1)
            return mixed


def segment_mean(states: Tensor, kept: Tensor, hidden: Hidden) -> Tensor:
    """Mean of the kept ``states`` of each row: ``[T, D], [T] -> [B, D]``."""
    rows = hidden.rows
    count = torch.zeros_like(hidden.lengths).index_add(0, rows, kept.long())
    total = states.new_zeros(len(count), states.shape[1]).index_add(0, rows, states * kept[:, None])
    return total / count[:, None]


def _among(kinds: Tensor, dropped: list[Kind]) -> Tensor:
    return torch.isin(kinds, torch.tensor(dropped, dtype=kinds.dtype, device=kinds.device))
