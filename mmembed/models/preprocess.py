"""From an Item to a Row, for every backbone with a language model: decode, render, tokenize, place.

CPU only and picklable. A family says how it prepares a medium and which token stands for it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any, ClassVar

import jinja2
import PIL.Image
import torch
from PIL.Image import Image as Picture
from torch import Tensor

from mmembed.errors import InputError
from mmembed.files import fingerprint
from mmembed.items import Image, Item, Media, Region, Video
from mmembed.media.decode import decode
from mmembed.media.regions import scale_regions, without_regions
from mmembed.media.video import Frames
from mmembed.models.media_cache import MediaCache
from mmembed.models.positions import Run, sequential_positions
from mmembed.models.prompts import Kind, Segment, render
from mmembed.models.region_encoders.preparer import RegionPreparer
from mmembed.models.region_prompts import RegionSlot
from mmembed.models.sequence import KEPT_FREE, PreparedMedium, Row
from mmembed.models.settings import BackboneSettings, LanguageSettings, PromptStyle, Side
from mmembed.models.tokens import Token, check_placeholders, tokenize_whole

TEMPLATE_DATE = date(2024, 7, 26)
"""What templates that write a date are told it is, lest a vector depend on the day: Llama 3.2's own, where it is told
none."""
FILLER_SIDE = 56
"""Side in pixels of a filler's picture."""


@dataclass(frozen=True)
class Prepared:
    """A medium ready to be placed in a prompt.

    Args:
        medium: its pixels.
        words: the text that stands for it, one placeholder or several.
        pads: tokens that each placeholder in ``words`` stands for.
        grid: its tokens in time, height and width, where positions follow them (M-RoPE).
        time_step: positions between two steps in time.
        size: width and height that coordinates of regions are relative to.
    """

    medium: PreparedMedium
    words: str
    pads: tuple[int, ...]
    grid: tuple[int, int, int] | None = None
    time_step: float = 1.0
    size: tuple[int, int] = (0, 0)


class MediaPreprocessor:
    """What every preprocessor does with the media of an item: decode them once, and say where regions are.

    Args:
        settings: of the backbone.
        prompt: how items are written.
        regions: how regions of pictures are told; None refuses them.
    """

    takes_video: ClassVar[bool] = True
    pixel_settings: ClassVar[tuple[str, ...]] = ()
    """Names of the settings that a prepared medium depends on besides its content."""

    def __init__(self, settings: BackboneSettings, prompt: PromptStyle, regions: RegionPreparer | None) -> None:
        self.settings: Any = settings
        self.prompt = prompt
        self.regions = regions
        self.cache: MediaCache | None = None
        self._preprocessing = repr([getattr(settings, name) for name in self.pixel_settings])

    def prepare(self, medium: Media, frames: Frames, name: str) -> Prepared:
        """Resize and cut a decoded medium; ``name`` is the fingerprint of what comes out."""
        raise NotImplementedError

    def refuse_unread(self, medium: Media) -> None:
        """Refuse a medium that the model has no input for.

        Raises:
            InputError: its kind is named.
        """
        if isinstance(medium, Video) and not self.takes_video:
            raise InputError(
                "item.video", expected="text and pictures: this model has no input for video", got="a video",
                remedy="give some of its frames as pictures, or take a model that reads video",
            )  # fmt: skip

    def _prepare(self, medium: Media) -> Prepared:
        self.refuse_unread(medium)
        return self._kept(medium, medium.fingerprint(), self.prepare)

    def _kept(self, medium: Media, key: str, prepare: Callable[[Media, Frames, str], Prepared]) -> Prepared:
        """What ``prepare`` makes of a medium, kept in memory under ``key``."""
        found = self.cache.get(key) if self.cache is not None else None
        if found is None:
            found = self._decoded(medium, key, prepare)
            if self.cache is not None:
                self.cache.put(key, found, found.medium.nbytes)
        return found

    def _decoded(self, medium: Media, key: str, prepare: Callable[[Media, Frames, str], Prepared]) -> Prepared:
        frames = decode(medium, self.settings.media, None if self.regions is None else self.regions.redraw)
        name = fingerprint(key, self._preprocessing)
        found = prepare(medium, frames, name)
        if self.regions is not None:

            def cut(picture: Picture) -> Tensor:
                return prepare(medium, replace(frames, pictures=(picture,)), name).medium.pixels

            shown = medium
            if isinstance(medium, Image):
                shown = scale_regions(medium, frames.size, frames.pictures[0].size)
            whole = self.regions.complete(found.medium, shown, frames.pictures[0], cut)
            found = replace(found, medium=whole)
        return replace(found, size=frames.size)

    def _seen(self, item: Item) -> Item:
        """The item with the regions of its pictures only where their pixels depend on them.

        Raises:
            InputError: regions, and no encoder to tell them.
        """
        marked = [medium for medium in item.media if isinstance(medium, Image) and medium.regions]
        if marked and self.regions is None:
            raise InputError(
                "image.regions", expected="no regions: this model has no region encoder", got=len(marked[0].regions),
                remedy="set regions of the embedder, crop the picture, or say in words where to look",
            )  # fmt: skip
        return item if self.regions is not None and self.regions.changes_pixels else without_regions(item)

    def _region_words(self, item: Item, prepared: Sequence[Prepared]) -> list[str]:
        """For each medium the words that tell its regions."""
        told = zip(item.media, prepared, strict=True)
        return [
            self.regions.words(medium, p.size)
            if self.regions is not None and isinstance(medium, Image) and medium.regions
            else ""
            for medium, p in told
        ]


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
            item, self.prompt, [p.words for p in prepared], self._apply_template, told, self.words.values(),
            self.image_word, [self.free_word if i in behind else "" for i in range(len(prepared))],
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
    def image_word(self) -> str:
        """The words of a picture, where a layout writes them without one."""
        return next(iter(self.words.values()), "")

    @property
    def free_word(self) -> str:
        """The placeholder of tokens that a region encoder fills."""
        return next(iter(self.words.values()), "")

    def filler(self) -> Item:
        """A small item for which every part of the model runs: a picture, with a region where there is an encoder."""
        regions = () if self.regions is None else (Region(box=(0, 0, FILLER_SIDE, FILLER_SIDE)),)
        return Item((Image(PIL.Image.new("RGB", (FILLER_SIDE, FILLER_SIDE)), regions),))

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
            count, kind, run = 1, segment.kind, Run(1)
            if segment.medium is not None and token in self.words:
                medium = prepared[segment.medium]
                count = next(pads[segment.medium])
                run = Run(count, medium.grid, medium.time_step)
            elif segment.free_for is not None:
                token, count = KEPT_FREE, free[segment.free_for]
                run = Run(count)
            elif segment.medium is not None:
                kind = Kind.TEMPLATE
            ids += [token] * count
            kinds += [int(kind)] * count
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
        """The checkpoint's template, without the beginning-of-text token where the tokenizer adds one itself."""
        template = getattr(self.prompt, "template", "") or self.tokenizer.chat_template
        if not template:
            raise InputError("prompt", expected="a chat template in the checkpoint", got="none", remedy="use RawPrompt")
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
