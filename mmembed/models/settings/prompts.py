"""How an Item is written as one string. No torch here."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from mmembed.errors import InputError
from mmembed.items import pieces_of
from mmembed.settings import Part


@dataclass(frozen=True)
class PromptStyle(Part):
    """How an Item is written as one string."""

    abstract: ClassVar[bool] = True


@dataclass(frozen=True)
class Phrases:
    """How the text of an item is written, by what the item holds; ``{text}`` stands for it.

    An item of verbatim content, or with a layout of its own, is written as it says.
    """

    text: str = "{text}"
    """For an item of text."""
    both: str = "{text}"
    """For an item of media and text, e.g. ``"a photo of $ that {text}"``."""

    def __post_init__(self) -> None:
        for name in ("text", "both"):
            if (phrase := getattr(self, name)).count("{text}") != 1:
                raise InputError(
                    f"phrases.{name}", expected="'{text}' once", got=f"'{phrase}'", remedy="write where the text goes"
                )


@dataclass(frozen=True)
class RawPrompt(PromptStyle):
    """Media, instruction and text joined by a separator, and nothing else (VLM2Vec; specs of arXiv:2410.05160)."""

    separator: str = " "
    """Stands between media, instruction and text of a dict-form item; verbatim content is joined without it."""
    media_separator: str | None = None
    """Stands behind each medium of a dict-form item instead, e.g. nothing (mmE5, arXiv:2502.08468); None is
    ``separator``."""
    prefix: str = ""
    """Put at the beginning, e.g. a system message and the opening of the user's turn."""
    suffix: str = ""
    """Added at the end, e.g. an end token that the embedding is read from."""
    phrases: Phrases = field(default_factory=Phrases)
    """Words around the text."""


@dataclass(frozen=True)
class Layouts:
    """How an item is written, by what it holds: a string with ``{media}``, ``{instruction}`` and ``{text}`` in it.

    Where a layout has no place for an instruction, the item's is the first words of its text.
    """

    text: str = "{instruction} {text}"
    """For an item of text."""
    media: str = "{media} {instruction}"
    """For an item of pictures or clips, which stand there one behind the other."""
    both: str = "{media} {instruction} {text}"
    """For an item of both, in this order whatever order the item has."""

    def __post_init__(self) -> None:
        for name, wanted in (("text", {"text"}), ("media", {"media"}), ("both", {"media", "text"})):
            layout = getattr(self, name)
            there = {slot for _, slot in pieces_of(layout)} - {"", "instruction"}
            if there != wanted:
                raise InputError(
                    f"layouts.{name}", expected=f"{' and '.join(f'{{{slot}}}' for slot in sorted(wanted))}",
                    got=f"'{layout}'", remedy="write where they go",
                )  # fmt: skip


@dataclass(frozen=True)
class LaidOutPrompt(PromptStyle):
    """A layout for each side, and for what an item holds (BGE-VL-MLLM, arXiv:2412.14475)."""

    query: Layouts = field(default_factory=Layouts)
    """For queries."""
    uninstructed: Layouts | None = None
    """For queries without an instruction; None writes them as with an empty one."""
    target: Layouts = field(default_factory=lambda: Layouts(text="{text}", media="{media}", both="{media} {text}"))
    """For targets."""


@dataclass(frozen=True)
class Request:
    """Words at the end of the user's turn that ask for one vector, by what the item holds (E5-V, arXiv:2407.12580)."""

    text: str = ""
    """For an item of text, e.g. ``"\\nSummarize above sentence in one word: "``."""
    media: str = ""
    """For an item of pictures or clips."""
    both: str = ""
    """For an item of both."""


@dataclass(frozen=True)
class ChatPrompt(PromptStyle):
    """The checkpoint's own chat template, as transformers renders it."""

    instruction_role: Literal["system", "user", "text"] = "system"
    """Whether the instruction is the system message, the first words of the user's turn, or stands before its text."""
    default_instruction: str | None = None
    """The instruction of an item that brings none, e.g. ``Represent the user's input.``; None leaves it without."""
    punctuate: bool = False
    """Strip an instruction, which counts as none where nothing is left, and end it with a full stop where it ends in no
    punctuation (Qwen3-VL-Embedding)."""
    instruction_markers: tuple[str, str] = ("", "")
    """Tokens around the instruction, which count as part of it, e.g. ``<instruction_start>`` and its end."""
    instruction_separator: str = ""
    """Stands between instruction and text of a dict-form item, where the instruction stands before its text."""
    request: Request = field(default_factory=Request)
    """Words that end the user's turn."""
    phrases: Phrases = field(default_factory=Phrases)
    """Words around the text."""
    answer: str = ""
    """What the assistant answered, e.g. ``<emb>.``; empty leaves its turn out."""
    generation_prompt: bool = True
    """Open the assistant's turn, so that the embedding is read where the answer would begin."""
    suffix: str = ""
    """Added at the end, e.g. ``<|endoftext|>``."""
    content: Literal["parts", "text"] = "parts"
    """How the template takes a message: as a list of parts, or as one string (Phi-3 and other text models)."""
    template: str = ""
    """Jinja to use instead of the checkpoint's template, where a model was trained with another; empty is its own."""
