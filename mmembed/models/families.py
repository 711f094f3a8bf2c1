"""What the shared code must know of a family of checkpoints."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from transformers import AutoConfig

from mmembed.errors import InputError, nearest
from mmembed.models.hub import Where, read_json, read_tokenizer
from mmembed.models.settings import Scratch


@dataclass(frozen=True)
class ScratchFamily:
    """What a small random checkpoint of a family is made with.

    Args:
        special_tokens: first tokens of the vocabulary.
        eos_token: one of them.
        pad_token: one of them.
        chat_template: Jinja, as transformers reads it; empty for none.
        config: settings and tokenizer -> the architecture's config.
        preprocessing: config -> what ``preprocessor_config.json`` says.
        bos_token: one of the special tokens, put before every text; None for none.
        adds_bos: whether the tokenizer itself puts it there, or whoever writes the prompt.
        closing_token: one of the special tokens, put behind every text by the tokenizer; None for none.
        other_templates: Jinja by model type, for those of the family that write a chat otherwise.
        settle: what to do to fresh weights, e.g. to gates that the library leaves shut.
    """

    special_tokens: tuple[str, ...]
    eos_token: str
    pad_token: str
    chat_template: str
    config: Callable[[Scratch, Any], Any]
    preprocessing: Callable[[Any], dict[str, Any]]
    bos_token: str | None = None
    adds_bos: bool = True
    closing_token: str | None = None
    other_templates: Mapping[str, str] = field(default_factory=dict)
    settle: Callable[[Any], None] | None = None


@dataclass(frozen=True)
class Family:
    """What is said once for all checkpoints of a family.

    Args:
        name: as its users say it.
        architectures: model types as transformers names them.
        tower: modules of the base model that are never quantised.
        renames: patterns that translate module names of released adapters, applied in order.
        scratch: how a small random one is made.
        heads: beginnings of the names of weights that are a head's or a loss's, which a checkpoint may have or lack.
        released: other model types of released checkpoints, which ``read_config`` translates.
    """

    name: str
    architectures: tuple[str, ...]
    tower: tuple[str, ...]
    renames: tuple[tuple[str, str], ...]
    scratch: ScratchFamily
    heads: tuple[str, ...] = ()
    released: tuple[str, ...] = ()

    def read_config(self, path: str, where: Where) -> Any:
        """The checkpoint's config; a family whose released ones transformers does not know translates them here."""
        return AutoConfig.from_pretrained(path, trust_remote_code=False, **where)

    def read_tokenizer(self, path: str, where: Where) -> Any:
        """The checkpoint's tokenizer."""
        return read_tokenizer(path, where)

    def read_preprocessing(self, path: str, where: Where) -> dict[str, Any]:
        """What the checkpoint says of pictures, as its ``preprocessor_config.json`` does."""
        facts = read_json(path, "preprocessor_config.json", where)
        return facts or dict(read_json(path, "processor_config.json", where).get("image_processor", {}))

    def weight_names(self, architecture: str) -> Mapping[str, str]:
        """Patterns of names of weights in checkpoints of a released model type, and what the library calls them."""
        return {}

    def trim(self, model: Any) -> None:
        """Take off a fresh or opened model what no embedding depends on, before any adapter is put in."""

    def check(self, architecture: str, where: str) -> None:
        """Refuse a model type of another family.

        Raises:
            InputError: the nearest known one is named.
        """
        if architecture not in (*self.architectures, *self.released):
            raise InputError(
                where, expected=f"a {self.name} checkpoint", got=f"'{architecture}'",
                remedy=nearest(architecture, self.architectures),
            )  # fmt: skip
