"""Pseudo-words: a picture's vector becomes the embedding of a word, which stands in a phrase in a placeholder's place.

Published mapping networks are read in their own layouts: see :meth:`PseudoWordComposer.released`.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmembed.errors import InputError
from mmembed.models.composers import Composer
from mmembed.models.prompts import Kind
from mmembed.models.sequence import Row, Sequence
from mmembed.models.settings.pseudo_words import Places

# under which key a published file keeps the network: SEARLE and LinCIR, LinCIR's copy of Pic2Word's, Pic2Word
_KEYS = ("Phi", "PIC2WORD", "state_dict_img2text")


class MappingNetwork(nn.Module):
    """An image vector, as the tower gives it, to a pseudo-word; in float32. Its weights are named as published."""

    def forward(self, vectors: Tensor) -> Tensor:
        """``[N, D] -> [N, W]``."""
        with torch.autocast(vectors.device.type, enabled=False):
            return self.map(vectors.float())

    def map(self, vectors: Tensor) -> Tensor:
        """See the concrete networks."""
        raise NotImplementedError


class PhiNetwork(MappingNetwork):
    """The network of SEARLE (arXiv:2303.15247) and LinCIR (arXiv:2312.01998).

    Args:
        width: D, numbers of an image vector.
        hidden: of both hidden layers.
        word_width: W, of a word.
        dropout: share of hidden numbers left out in training.
        unit_input: scale the vectors to unit length first.
    """

    def __init__(
        self, width: int, hidden: int, word_width: int, dropout: float, *, unit_input: bool = False
    ) -> None:  # fmt: skip
        super().__init__()
        self.unit_input = unit_input
        self.layers = nn.Sequential(
            nn.Linear(width, hidden), nn.GELU(), nn.Dropout(dropout),
            nn.Linear(hidden, hidden), nn.GELU(), nn.Dropout(dropout),
            nn.Linear(hidden, word_width),
        )  # fmt: skip

    def map(self, vectors: Tensor) -> Tensor:
        """See :class:`MappingNetwork`."""
        words: Tensor = self.layers(F.normalize(vectors, dim=-1) if self.unit_input else vectors)
        return words


class Pic2WordNetwork(MappingNetwork):
    """The network of Pic2Word (arXiv:2302.03084); arguments as :class:`PhiNetwork`'s first."""

    def __init__(self, width: int, hidden: int, word_width: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Sequential(nn.Linear(size, hidden), nn.Dropout(dropout), nn.ReLU()) for size in (width, hidden))
        )
        self.fc_out = nn.Linear(hidden, word_width)

    def map(self, vectors: Tensor) -> Tensor:
        """See :class:`MappingNetwork`."""
        words: Tensor = self.fc_out(self.layers(vectors))
        return words


class PhraseComposer(Composer):
    """The text vector of a phrase with a pseudo-word in the placeholder's place.

    Args:
        placeholder: its token id.
        places: which placeholders of a text the pseudo-word stands at.
    """

    def __init__(self, placeholder: int, places: Places) -> None:
        super().__init__()
        self.placeholder = placeholder
        self.places: Places = places

    def words(self, vectors: Tensor, backbone: Any) -> Tensor:
        """The pseudo-words of image vectors: ``[N, D] -> [N, W]``.

        Args:
            vectors: not scaled to unit length, float32.
            backbone: the dual encoder that gave them.
        """
        raise NotImplementedError

    def check(self, row: Row) -> None:
        """See :meth:`Pooler.check`.

        Raises:
            InputError: media and text, and no placeholder among its tokens.
        """
        texts = int((row.kinds == Kind.TEXT).sum())
        if row.media and texts and not bool((row.ids == self.placeholder).any()):
            raise _without(f"{texts} tokens without it")

    def inject(self, sequence: Sequence, backbone: Any) -> Sequence:
        """Put the pseudo-word of each row of media and text in.

        Raises:
            InputError: such a row without the placeholder.
        """
        vectors, rows = backbone.media(sequence)
        both = torch.isin(rows, _row_of_tokens(sequence)[~sequence.visual])
        if not bool(both.any()):
            return sequence
        words = self.words(vectors[both], backbone)
        return replaced(sequence, words, rows[both], self.placeholder, self.places)

    def compose(self, image: Tensor, text: Tensor) -> Tensor:
        """See :meth:`Composer.compose`: the picture is in the text."""
        return text


class PseudoWordComposer(PhraseComposer):
    """Pseudo-words by a mapping network; see :class:`mmembed.models.settings.Phi` and ``Pic2Word``.

    Args:
        network: makes them.
        placeholder: see :class:`PhraseComposer`; places alike.
        places: see there.
    """

    def __init__(self, network: MappingNetwork, placeholder: int, places: Places) -> None:
        super().__init__(placeholder, places)
        self.network = network

    def words(self, vectors: Tensor, backbone: Any) -> Tensor:
        """See :meth:`PhraseComposer.words`."""
        words: Tensor = self.network(vectors)
        return words

    def released(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """What a published file holds, by the names of this composer's own weights.

        It may be the network's weights alone, or hold them under ``Phi`` (SEARLE, LinCIR) or ``state_dict_img2text``
        (Pic2Word, whose CLIP in the same file is not read).
        """
        inside = next((values[key] for key in _KEYS if isinstance(values.get(key), Mapping)), values)
        return {f"network.{_bare(name)}": value for name, value in inside.items()}


def replaced(sequence: Sequence, words: Tensor, rows: Tensor, placeholder: int, places: Places) -> Sequence:
    """The sequence with pseudo-words in the placeholder's place.

    Args:
        sequence: of texts, or of media and texts.
        words: ``[N, W]``; gradient flows to them.
        rows: the row of each of them ``[N]``.
        placeholder: its token id.
        places: the first placeholder of a row or all of them.

    Raises:
        InputError: one of the rows has no placeholder.
    """
    order = torch.full_like(sequence.lengths, -1).index_copy(0, rows, torch.arange(len(rows), device=rows.device))
    which = order[_row_of_tokens(sequence)]
    at = ((sequence.ids == placeholder) & ~sequence.visual & (which >= 0)).nonzero()[:, 0]
    first = which[at].diff(prepend=which.new_tensor([-1])) != 0
    if int(first.sum()) < len(rows):
        raise _without(f"{len(rows) - int(first.sum())} of {len(rows)} without it")
    if places == "first":
        at = at[first]
    put = words[which[at]].to(sequence.embeds.dtype)
    return replace(sequence, embeds=sequence.embeds.index_copy(0, at, put))


def _row_of_tokens(sequence: Sequence) -> Tensor:
    numbers = torch.arange(len(sequence.lengths), device=sequence.lengths.device)
    return torch.repeat_interleave(numbers, sequence.lengths)


def _without(got: str) -> InputError:
    return InputError(
        "item.text", expected="pooler.placeholder in the words of an item of media and text", got=got,
        remedy="write it in prompt.phrases.both, before {text} lest the context cuts it off; verbatim items and those "
        "of a layout bring it themselves",
    )  # fmt: skip


def _bare(name: str) -> str:
    """A weight's name without what this composer or torch's parallel training puts before it."""
    return name.removeprefix("network.").removeprefix("module.")
