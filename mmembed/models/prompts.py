"""The one renderer: an Item becomes segments of a prompt, each knowing what it is.

The rows give the words, the prompt style gives order and template, the backbone gives the words that stand for a
medium. Raw style: VLM2Vec's ``process_input_text``. Chat style: the checkpoint's own template, rendered around
placeholders that no user text passes through, so that a medium or an instruction is found by where it stands and never
by what it looks like.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from mmembed.items import Image, Item, Page, Part, Video
from mmembed.models.settings import ChatPrompt, PromptStyle, RawPrompt

# private-use characters, which no tokenizer's template contains; user text never passes through the template
_OPEN, _CLOSE = "\ue000", "\ue001"


class Kind(IntEnum):
    """What a token is: words, words that say the task, template, part of a medium, or what points into one."""

    TEXT = 0
    INSTRUCTION = 1
    TEMPLATE = 2
    IMAGE = 3
    VIDEO = 4
    REGION = 5


@dataclass(frozen=True)
class Segment:
    """A piece of a prompt: its text, what it is, and which medium of the Item it stands for."""

    text: str
    kind: Kind
    medium: int | None = None


ApplyTemplate = Callable[[list[dict[str, Any]], bool], str]


def render(
    item: Item,
    style: PromptStyle,
    medium_words: Sequence[str],
    apply_template: ApplyTemplate | None = None,
    region_words: Sequence[str] = (),
) -> list[Segment]:
    """Write an Item in a style.

    Args:
        item: what to write.
        style: raw or chat.
        medium_words: for each medium of the item, in order, the text that stands for it.
        apply_template: the tokenizer's chat template: messages and whether to open the assistant's turn -> text.
        region_words: for each medium, in order, words that point into it and stand right behind it; empty for none.

    Returns:
        Segments whose texts, joined, are the prompt.
    """
    region_words = region_words or [""] * len(medium_words)
    if isinstance(style, RawPrompt):
        segments = _raw(item, style, medium_words, region_words)
    elif isinstance(style, ChatPrompt):
        if apply_template is None:
            raise ValueError("the chat style needs the tokenizer's template")
        segments = _chat(item, style, medium_words, region_words, apply_template)
    else:
        raise TypeError(f"no renderer for {type(style).__name__}")
    suffix = getattr(style, "suffix", "")
    return [s for s in [*segments, Segment(suffix, Kind.TEMPLATE)] if s.text]


def medium_kind(part: Part) -> Kind:
    """IMAGE for pictures and pages, VIDEO for clips."""
    return Kind.VIDEO if isinstance(part, Video) else Kind.IMAGE


def _parts(item: Item, medium_words: Sequence[str], region_words: Sequence[str]) -> list[Segment]:
    segments, seen = [], 0
    for part in item.content:
        if isinstance(part, str):
            segments.append(Segment(part, Kind.TEXT))
        else:
            segments.append(Segment(medium_words[seen], medium_kind(part), seen))
            if region_words[seen]:
                segments.append(Segment(region_words[seen], Kind.REGION))
            seen += 1
    return segments


def _raw(item: Item, style: RawPrompt, medium_words: Sequence[str], region_words: Sequence[str]) -> list[Segment]:
    parts = _parts(item, medium_words, region_words)
    instruction = [] if item.instruction is None else [Segment(item.instruction, Kind.INSTRUCTION)]
    separator = Segment(style.separator, Kind.TEMPLATE)
    if item.verbatim:
        parts = [piece for p in parts for piece in ((separator, p) if p.kind is Kind.REGION else (p,))]
        return [*instruction, separator, *parts] if instruction else parts
    media = [s for s in parts if s.kind is not Kind.TEXT]
    texts = [s for s in parts if s.kind is Kind.TEXT]
    # an empty instruction still brings its separator: the published strings have it
    pieces = [*media, *instruction, *texts]
    return [piece for i, p in enumerate(pieces) for piece in ((separator, p) if i else (p,))]


def _chat(
    item: Item,
    style: ChatPrompt,
    medium_words: Sequence[str],
    region_words: Sequence[str],
    apply_template: ApplyTemplate,
) -> list[Segment]:
    """Render the template around numbered placeholders, then put the real texts where these stand."""
    texts: list[Segment] = []

    def placeholder(text: str, kind: Kind) -> str:
        texts.append(Segment(text, kind))
        return f"{_OPEN}{len(texts) - 1}{_CLOSE}"

    messages: list[dict[str, Any]] = []
    content: list[dict[str, Any]] = []
    if item.instruction is not None:
        words = placeholder(item.instruction, Kind.INSTRUCTION)
        if style.instruction_role == "system":
            messages.append({"role": "system", "content": [{"type": "text", "text": words}]})
        else:
            content.append({"type": "text", "text": words})
    kinds: list[Kind] = []
    for part in item.content:
        if isinstance(part, str):
            content.append({"type": "text", "text": placeholder(part, Kind.TEXT)})
        else:
            content.append({"type": "image" if isinstance(part, Image | Page) else "video"})
            if region_words[len(kinds)]:
                content.append({"type": "text", "text": placeholder(region_words[len(kinds)], Kind.REGION)})
            kinds.append(medium_kind(part))
    messages.append({"role": "user", "content": content})
    return _fill(apply_template(messages, style.generation_prompt), texts, kinds, medium_words)


def _fill(template: str, texts: list[Segment], kinds: list[Kind], medium_words: Sequence[str]) -> list[Segment]:
    pads = r"(<\|(?:image|video)_pad\|>|<image>)"
    segments: list[Segment] = []
    seen = 0
    for piece in re.split(rf"({_OPEN}\d+{_CLOSE})|{pads}", template):
        if not piece:
            continue
        if piece[0] == _OPEN:
            segments.append(texts[int(piece[1:-1])])
        elif re.fullmatch(pads, piece):
            segments.append(Segment(medium_words[seen], kinds[seen], seen))
            seen += 1
        else:
            segments.append(Segment(piece, Kind.TEMPLATE))
    if seen != len(medium_words):
        raise ValueError(f"the chat template placed {seen} of {len(medium_words)} media")
    return segments
