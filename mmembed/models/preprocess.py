"""From an Item to a Row, for every backbone with a language model: decode, render, tokenize, place.

CPU only and picklable. A family says which token stands for a medium.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import Any, ClassVar

import jinja2
import torch
from torch import Tensor

from mmembed.counters import count
from mmembed.errors import InputError
from mmembed.items import Item, Media
from mmembed.models.layouts import laid_out
from mmembed.models.media_preprocess import MediaPreprocessor, Prepared
from mmembed.models.positions import Run, sequential_positions
from mmembed.models.prompts import Kind, Segment, render
from mmembed.models.region_encoders.preparer import RegionPreparer
from mmembed.models.region_prompts import RegionSlot
from mmembed.models.sequence import KEPT_FREE, Row
from mmembed.models.settings import LanguageSettings, PromptStyle, Side
from mmembed.models.tokens import Token, check_placeholders, tokenize_whole

TEMPLATE_DATE = date(2024, 7, 26)
"""What templates that write a date are told it is, lest a vector depend on the day: Llama 3.2's own, where it is told
none."""
MOST_TEMPLATES = 1024
"""Rendered templates kept; as many conversations of different build are seldom met."""
_WORD = Run(1)


class LanguagePreprocessor(MediaPreprocessor):
    """Item -> Row; holds the tokenizer and the settings, no weights.

    Args:
        tokenizer: of the checkpoint.
        settings: of the backbone.
        prompt: how items are written.
        regions: how regions of pictures are told; None refuses them.
        placeholders: ids of the tokens that stand for media, and what they are called.
    """

    settings: LanguageSettings
    smaller: ClassVar[str] = "give smaller pictures"
    """What the user may do where media do not fit."""

    def __init__(
        self,
        tokenizer: Any,
        settings: LanguageSettings,
        prompt: PromptStyle,
        regions: RegionPreparer | None,
        placeholders: Mapping[int, str],
    ) -> None:
        super().__init__(settings, prompt, regions)
        self.tokenizer = tokenizer
        self.words = check_placeholders(tokenizer, placeholders, settings.path or "scratch")
        self._rendered: dict[tuple[str, str, bool], str] = {}

    def __call__(self, item: Item, side: Side) -> Row:
        """Decode, render, tokenize and place one item.

        Raises:
            InputError: a medium that cannot be read or that the model has no input for, media or regions that do not
                fit ``max_length``, or regions that are not in their picture or that no encoder would tell.
        """
        prepared = self.prepare_all(self._seen(item).media)
        told = self._region_words(item, prepared)
        slots = self._slots(item, prepared)
        leading = sum(slot.tokens for slot in slots) if self.regions is not None and self.regions.leads else 0
        behind = {} if leading else _tokens_by_medium(slots)
        segments = render(
            laid_out(item, self.prompt, side), self.prompt, [p.words for p in prepared], self._apply_template, told,
            self.placeholders, self.image_word, [self.free_word if i in behind else "" for i in range(len(prepared))],
        )  # fmt: skip
        ids, kinds, runs = self._cut(*self._place(segments, prepared, behind), leading)
        positions = self.positions(runs)
        return Row(
            ids=torch.tensor([KEPT_FREE] * leading + ids, dtype=torch.long),
            kinds=torch.tensor([int(Kind.REGION)] * leading + kinds, dtype=torch.uint8),
            positions=torch.cat([positions.new_zeros(3, leading), positions + leading], dim=1),
            media=tuple(p.medium for p in prepared),
            side=side,
            regions=tuple(slots),
        )

    @property
    def placeholders(self) -> tuple[str, ...]:
        """What a chat template writes where a medium stands, longer strings before those that they hold."""
        return tuple(self.words.values())

    @property
    def image_word(self) -> str:
        """The words of a picture, where a layout writes them without one."""
        return next(iter(self.words.values()), "")

    @property
    def free_word(self) -> str:
        """The placeholder of tokens that a region encoder fills."""
        return next(iter(self.words.values()), "")

    def filler(self) -> Item:
        """A small item for which every part of the model runs: a picture, with a region where there is an encoder."""
        return Item((self.filler_picture(),))

    def prepare_all(self, media: Sequence[Media]) -> list[Prepared]:
        """The media of an item, each by itself; a family may show several otherwise than one."""
        return [self._prepare(medium) for medium in media]

    def positions(self, runs: Sequence[Run]) -> Tensor:
        """``[3, T]``; one counter unless a family has its own."""
        return sequential_positions(sum(run.length for run in runs))

    def tokenize(self, segments: Sequence[Segment]) -> Iterator[Token]:
        """The prompt's tokens; the whole string at once unless a family cuts it."""
        return tokenize_whole(self.tokenizer, segments)

    def _slots(self, item: Item, prepared: Sequence[Prepared]) -> list[RegionSlot]:
        """The tokens to keep free for the regions of the item's media, in order."""
        if self.regions is None:
            return []
        media = enumerate(zip(item.media, prepared, strict=True))
        return [slot for number, (medium, p) in media for slot in self.regions.slots(number, medium, p.size)]

    def _place(
        self, segments: Sequence[Segment], prepared: Sequence[Prepared], free: Mapping[int, int]
    ) -> tuple[list[int], list[int], list[Run]]:
        """Ids, kinds and runs of the tokens, each placeholder of a medium repeated for what it stands for.

        ``free`` says how many tokens are kept free behind a medium, by its number.
        """
        ids: list[int] = []
        kinds: list[int] = []
        runs: list[Run] = []
        pads = [iter(p.pads) for p in prepared]
        for token, segment in self.tokenize(segments):
            kind, run = segment.kind, _WORD
            if segment.medium is not None and token in self.words:
                medium = prepared[segment.medium]
                run = Run(next(pads[segment.medium]), medium.grid, medium.time_step)
            elif segment.free_for is not None:
                token, run = KEPT_FREE, Run(free[segment.free_for])
            elif segment.medium is not None:
                kind = Kind.TEMPLATE
            ids += [token] * run.length
            kinds += [int(kind)] * run.length
            runs.append(run)
        return ids, kinds, runs

    def _cut(
        self, ids: list[int], kinds: list[int], runs: list[Run], leading: int
    ) -> tuple[list[int], list[int], list[Run]]:
        """Cut words at the end, before a closing template; media and their regions are never cut."""
        limit = (self.settings.max_length or self.tokenizer.model_max_length) - leading
        if len(ids) <= limit:
            return ids, kinds, runs
        closing = 0
        while closing < len(kinds) and kinds[-1 - closing] == Kind.TEMPLATE:
            closing += 1
        closing = min(closing, limit)
        keep = limit - closing
        if any(kind in (Kind.IMAGE, Kind.VIDEO, Kind.REGION) for kind in kinds[keep : len(kinds) - closing]):
            raise InputError(
                "item", expected=f"media and regions within max_length {limit + leading}",
                got=f"{len(ids) + leading} tokens, some past it",
                remedy=f"raise max_length or {self.smaller}",
            )  # fmt: skip
        tail = len(ids) - closing
        kept, taken = [], 0
        for run in runs:
            if taken < keep or taken >= tail:
                kept.append(run)
            taken += run.length
        return ids[:keep] + ids[tail:], kinds[:keep] + kinds[tail:], kept

    def _apply_template(self, messages: list[dict[str, Any]], generation_prompt: bool) -> str:
        """The checkpoint's template, without the beginning-of-text token where the tokenizer adds one itself.

        The messages hold numbered places and no words of an item, so that items of like build share what is rendered.
        """
        template = getattr(self.prompt, "template", "") or self.tokenizer.chat_template
        if not template:
            raise InputError("prompt", expected="a chat template in the checkpoint", got="none", remedy="use RawPrompt")
        key = (str(template), repr(messages), generation_prompt)
        if key not in self._rendered:
            if len(self._rendered) == MOST_TEMPLATES:
                self._rendered.clear()
            self._rendered[key] = self._render_template(template, messages, generation_prompt)
        return self._rendered[key]

    def _render_template(self, template: Any, messages: list[dict[str, Any]], generation_prompt: bool) -> str:
        count("templates_rendered")
        try:
            text = self.tokenizer.apply_chat_template(
                messages,
                chat_template=template,
                tokenize=False,
                add_generation_prompt=generation_prompt,
                strftime_now=TEMPLATE_DATE.strftime,
            )
        except TypeError as error:
            raise InputError(
                "prompt.content", expected="messages as the checkpoint's chat template takes them", got=error,
                remedy="set content: text for a template that takes a message as one string",
            ) from error  # fmt: skip
        except jinja2.TemplateError as error:
            raise InputError(
                "prompt", expected="a chat template that takes these messages", got=error,
                remedy="use another instruction_role, another template, or RawPrompt",
            ) from error  # fmt: skip
        first, ids = self.tokenizer.bos_token, self.tokenizer("").input_ids
        begins_itself = bool(first) and ids[:1] == [self.tokenizer.bos_token_id]
        return str(text).removeprefix(first) if begins_itself else str(text)


def _tokens_by_medium(slots: Sequence[RegionSlot]) -> dict[int, int]:
    counts: dict[int, int] = {}
    for slot in slots:
        counts[slot.medium] = counts.get(slot.medium, 0) + slot.tokens
    return counts
