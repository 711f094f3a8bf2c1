"""What every backbone is: a picklable preprocessor and a module with the verbs vision, embed and run."""

from pathlib import Path
from typing import Any, Protocol

from torch import nn

from mmembed.items import Item
from mmembed.models.sequence import Batch, Features, Hidden, Row, Sequence
from mmembed.models.settings import Side


class Preprocessor(Protocol):
    """Item -> Row on the CPU, in a worker if wanted."""

    def __call__(self, item: Item, side: Side) -> Row:
        """Decode, render, tokenize and place one item."""


class Backbone(nn.Module):
    """A vision-language model without its head. Subclasses are adapters around an installed library.

    Attributes:
        model: the library's base model.
        preprocessor: picklable, CPU only.
        width: D, the size of a hidden state.
    """

    model: Any
    preprocessor: Preprocessor
    width: int

    def vision(self, batch: Batch) -> Features:
        """Encode the batch's distinct media."""
        raise NotImplementedError

    def embed(self, batch: Batch, features: Features) -> Sequence:
        """Token embeddings with the media's features in their slots."""
        raise NotImplementedError

    def run(self, sequence: Sequence) -> Hidden:
        """The language model over the sequence; states after the final norm."""
        raise NotImplementedError

    @property
    def tower(self) -> nn.Module:
        """The part that :meth:`vision` runs."""
        raise NotImplementedError

    @property
    def tower_is_frozen(self) -> bool:
        """Whether no weight of the tower trains, so that its features may be computed once and kept."""
        return not any(p.requires_grad for p in self.tower.parameters())

    def facts(self) -> dict[str, str]:
        """What its vectors depend on besides weights and settings, by name: the checkpoint's config, its tokenizer."""
        raise NotImplementedError

    def save(self, directory: Path) -> None:
        """Write weights, config, tokenizer and preprocessing facts as a checkpoint the library can open."""
        raise NotImplementedError
