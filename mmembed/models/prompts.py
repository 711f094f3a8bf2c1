"""The one renderer: an Item becomes segments of a prompt, each knowing what it is.

The rows give the words, the prompt style gives order and template, the backbone gives the words that stand for a
medium. Raw style: VLM2Vec's ``process_input_text``, or the item's own layout. Chat style: the checkpoint's own
template, rendered around placeholders that no user text passes through, so that a medium or an instruction is found by
where it stands and never by what it looks like.
"""

import re
import unicodedata
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from mmembed.errors import InputError
from mmembed.items import Item, Part, Video, pieces_of
from mmembed.models.settings import ChatPrompt, LaidOutPrompt, PromptStyle, RawPrompt

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
    """A piece of a prompt: its text, what it is, and the medium of the Item it stands for, or keeps tokens free for."""

    text: str
    kind: Kind
    medium: int | None = None
    free_for: int | None = None


ApplyTemplate = Callable[[list[dict[str, Any]], bool], str]


def render(
    item: Item,
    style: PromptStyle,
    medium_words: Sequence[str],
    apply_template: ApplyTemplate | None = None,
    region_words: Sequence[str] = (),
    placeholders: Collection[str] = ("<|image_pad|>", "<|video_pad|>"),
    image_word: str = "",
    free_words: Sequence[str] = (),
) -> list[Segment]:
    """Write an Item in a style.

    Args:
        item: what to write.
        style: raw, chat, or by layouts, see :func:`mmembed.models.layouts.laid_out`.
        medium_words: for each medium of the item, in order, the text that stands for it.
        apply_template: the tokenizer's chat template: messages and whether to open the assistant's turn -> text.
        region_words: for each medium, in order, words that point into it and stand right behind it; empty for none.
        placeholders: the tokens that the template writes where a medium stands.
        image_word: the text of a raw prompt where a layout has the word for a picture that the item has not.
        free_words: for each medium, in order, the placeholder of tokens right behind it that a region encoder fills;
            empty for none.

    Returns:
        Segments whose texts, joined, are the prompt.
    """
    none = [""] * len(medium_words)
    parts = _parts(item, medium_words, region_words or none, free_words or none)
    if isinstance(style, RawPrompt):
        segments = _raw(item, style, parts, image_word)
    elif isinstance(style, LaidOutPrompt):
        if item.layout is None:
            raise ValueError("an item gets its layout from mmembed.models.layouts first")
        segments = _laid_out(item.layout, parts, item.instruction or "", Segment(image_word, Kind.TEXT))
    elif isinstance(style, ChatPrompt):
        if apply_template is None:
            raise ValueError("the chat style needs the tokenizer's template")
        segments = _Chat(item, style, parts, placeholders).segments(apply_template)
    else:
        raise TypeError(f"no renderer for {type(style).__name__}")
    before, after = _phrase(item, style)
    written = (
        (Segment(before, Kind.TEMPLATE), s, Segment(after, Kind.TEMPLATE)) if s.kind is Kind.TEXT else (s,)
        for s in segments
    )  # fmt: skip
    segments = [piece for pieces in written for piece in pieces]
    prefix, suffix = getattr(style, "prefix", ""), getattr(style, "suffix", "")
    return [s for s in [Segment(prefix, Kind.TEMPLATE), *segments, Segment(suffix, Kind.TEMPLATE)] if s.text]


def medium_kind(part: Part) -> Kind:
    """IMAGE for pictures and pages, VIDEO for clips."""
    return Kind.VIDEO if isinstance(part, Video) else Kind.IMAGE


def _phrase(item: Item, style: RawPrompt | ChatPrompt | LaidOutPrompt) -> tuple[str, str]:
    """The words before and behind the text of an item."""
    if item.verbatim or item.layout is not None or isinstance(style, LaidOutPrompt):
        return "", ""
    before, _, after = getattr(style.phrases, "both" if item.media else "text").partition("{text}")
    return before, after


def _parts(
    item: Item, medium_words: Sequence[str], region_words: Sequence[str], free_words: Sequence[str]
) -> list[Segment]:
    segments, seen = [], 0
    for part in item.content:
        if isinstance(part, str):
            segments.append(Segment(part, Kind.TEXT))
        else:
            segments.append(Segment(medium_words[seen], medium_kind(part), seen))
            if free_words[seen]:
                segments.append(Segment(free_words[seen], Kind.REGION, free_for=seen))
            if region_words[seen]:
                segments.append(Segment(region_words[seen], Kind.REGION))
            seen += 1
    return segments


def _raw(item: Item, style: RawPrompt, parts: list[Segment], image_word: str) -> list[Segment]:
    if item.layout is not None:
        return _laid_out(item.layout, parts, item.instruction or "", Segment(image_word, Kind.TEXT))
    instruction = [] if item.instruction is None else [Segment(item.instruction, Kind.INSTRUCTION)]
    separator = Segment(style.separator, Kind.TEMPLATE)
    if item.verbatim:
        parts = [piece for p in parts for piece in ((separator, p) if _is_told(p) else (p,))]
        return [*instruction, separator, *parts] if instruction else parts
    media = [s for s in parts if s.kind is not Kind.TEXT]
    texts = [s for s in parts if s.kind is Kind.TEXT]
    # an empty instruction still brings its separator: the published strings have it
    pieces = [*media, *instruction, *texts]
    behind_media = separator if style.media_separator is None else Segment(style.media_separator, Kind.TEMPLATE)
    written: list[Segment] = []
    for number, piece in enumerate(pieces):
        # tokens kept free for a region belong to their picture
        is_joined = bool(written) and piece.free_for is None
        between = behind_media if number <= len(media) else separator
        written += [between, piece] if is_joined else [piece]
    return written


def _is_told(part: Segment) -> bool:
    """Whether a part is words that tell a region, and not tokens that an encoder fills."""
    return part.kind is Kind.REGION and part.free_for is None


def _laid_out(layout: str, parts: Sequence[Segment], instruction: str, image_word: Segment) -> list[Segment]:
    """The item in its layout. An empty text takes a space before it along, as in the published strings."""
    filled = {
        "media": [part for part in parts if part.kind is not Kind.TEXT],
        "instruction": [Segment(instruction, Kind.INSTRUCTION)],
        "text": [part for part in parts if part.kind is Kind.TEXT and part.text],
        "image_token": [image_word],
        "": [],
    }
    segments = []
    for words, slot in pieces_of(layout):
        before = words.removesuffix(" ") if slot == "text" and not filled[slot] else words
        segments += [Segment(before, Kind.TEMPLATE), *filled[slot]]
    return segments


def _punctuated(instruction: str) -> str | None:
    """Without spaces around, and with punctuation at its end, as Unicode knows it; None where nothing is left."""
    words = instruction.strip()
    if not words:
        return None
    return words if unicodedata.category(words[-1]).startswith("P") else f"{words}."


class _Chat:
    """Renders the template around numbered placeholders, then puts the real segments where these stand."""

    def __init__(
        self,
        item: Item,
        style: ChatPrompt,
        parts: list[Segment],
        placeholders: Collection[str],
    ) -> None:
        self.item = item
        self.style = style
        self.parts = parts
        self.placeholders = placeholders
        self.placed: list[Segment] = []

    def segments(self, apply_template: ApplyTemplate) -> list[Segment]:
        """The whole conversation."""
        messages = [{"role": role, "content": self._content(turn)} for role, turn in self._turns()]
        return self._fill(apply_template(messages, self.style.generation_prompt))

    def _turns(self) -> list[tuple[str, list[Segment]]]:
        """Who says what."""
        instruction = self._instruction()
        turns, user = [], list(self.parts)
        if instruction and self.style.instruction_role == "system":
            turns.append(("system", instruction))
        elif self.style.instruction_role == "user":
            user = instruction + user
        elif instruction:
            first = next((i for i, part in enumerate(user) if part.kind is Kind.TEXT), len(user))
            separator = self.style.instruction_separator
            if separator and first < len(user) and not self.item.verbatim:
                instruction.append(Segment(separator, Kind.TEMPLATE))
            user[first:first] = instruction
        request = getattr(self.style.request, self._holds())
        turns.append(("user", [*user, *([Segment(request, Kind.TEMPLATE)] if request else [])]))
        if self.style.answer:
            turns.append(("assistant", [Segment(self.style.answer, Kind.TEMPLATE)]))
        return turns

    def _instruction(self) -> list[Segment]:
        instruction = self.item.instruction
        if instruction is not None and self.style.punctuate:
            instruction = _punctuated(instruction)
        if instruction is None:
            instruction = self.style.default_instruction
        if instruction is None:
            return []
        before, after = self.style.instruction_markers
        return [Segment(before + instruction + after, Kind.INSTRUCTION)]

    def _holds(self) -> str:
        """The field of Request that speaks of this item."""
        is_told = self.style.instruction_role == "text" and self.item.instruction is not None
        has_text = is_told or any(part.kind is Kind.TEXT for part in self.parts)
        if not self.item.media:
            return "text"
        return "both" if has_text else "media"

    def _content(self, turn: list[Segment]) -> str | list[dict[str, str]]:
        if self.style.content == "text":
            return "".join(self._placeholder(segment) for segment in turn)
        names = {Kind.IMAGE: "image", Kind.VIDEO: "video"}
        return [
            {"type": "text", "text": self._placeholder(segment)}
            if segment.medium is None
            else {"type": names[segment.kind]}
            for segment in turn
        ]

    def _placeholder(self, segment: Segment) -> str:
        self.placed.append(segment)
        return f"{_OPEN}{len(self.placed) - 1}{_CLOSE}"

    def _fill(self, template: str) -> list[Segment]:
        pads = "|".join(map(re.escape, self.placeholders)) or "(?!)"
        media = [part for part in self.parts if part.medium is not None]
        waiting = iter(media)
        segments: list[Segment] = []
        for piece in re.split(rf"({_OPEN}\d+{_CLOSE})|({pads})", template):
            if not piece:
                continue
            if piece[0] == _OPEN:
                segments.append(self.placed[int(piece[1:-1])])
            elif re.fullmatch(pads, piece) and (medium := next(waiting, None)):
                segments.append(medium)
            else:
                segments.append(Segment(piece, Kind.TEMPLATE))
        self._refuse_losses(segments, template)
        return segments

    def _refuse_losses(self, segments: list[Segment], template: str) -> None:
        """Refuse a template that leaves something out, or writes a message as Python shows a list."""
        wanted = {id(segment): segment for segment in (*self.placed, *self.parts)}
        written = [id(segment) for segment in segments if id(segment) in wanted]
        lost = [segment.kind.name.lower() for name, segment in wanted.items() if written.count(name) != 1]
        is_shown = any("{'type'" in segment.text for segment in segments if segment.kind is Kind.TEMPLATE)
        if lost or is_shown:
            got = f"not once: {', '.join(sorted(set(lost)))}" if lost else "a list of parts as Python shows it"
            raise InputError(
                "prompt", expected="a chat template that writes every part of an item once",
                got=f"{got}; in '{re.sub(f'{_OPEN}.*?{_CLOSE}', '...', template)}'",
                remedy="set content: text for a template that takes a message as one string, parts for one that takes "
                "a list, another instruction_role for one without a system message, or use RawPrompt",
            )  # fmt: skip
