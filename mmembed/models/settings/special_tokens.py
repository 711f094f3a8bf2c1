"""Tokens that a checkpoint is given besides its own. No torch here."""

from dataclasses import dataclass
from typing import Literal

from mmembed.errors import InputError


@dataclass(frozen=True)
class SpecialTokens:
    """Tokens added to a checkpoint's tokenizer, each with a row of the embedding table."""

    tokens: tuple[str, ...]
    """As they are written, e.g. ``<emb>``. One that the tokenizer knows keeps its row."""
    init: Literal["mean", "normal"] = "mean"
    """A new row is the mean of all rows before it, or is drawn with their spread. Under ``mean`` the first new token
    keeps the row that a table longer than the vocabulary already holds at its place, as released code has it."""
    seed: int = 0
    """Seed of the rows drawn."""
    train: bool = True
    """Whether the rows of ``tokens`` train. With a LoRA they then are part of the adapter; where they do not train they
    keep their bits, also under weight decay."""

    def __post_init__(self) -> None:
        if not self.tokens or "" in self.tokens or len(set(self.tokens)) < len(self.tokens):
            raise InputError(
                "special_tokens.tokens", expected="different words, at least one", got=self.tokens,
                remedy="leave special_tokens out to add none",
            )  # fmt: skip
