"""From an Item to a Row for the Qwen-VL family: decode, resize, render, tokenize, place. CPU only and picklable."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from mmembed.errors import InputError
from mmembed.files import fingerprint
from mmembed.items import Image, Item, Media, Video
from mmembed.media.decode import decode
from mmembed.models.backbones.qwen_vl.pixels import enlarge_tiny, patchify, resize, target_size
from mmembed.models.backbones.qwen_vl.positions import Run, mrope_positions, sequential_positions
from mmembed.models.media_cache import MediaCache
from mmembed.models.prompts import Kind, Segment, render
from mmembed.models.region_encoders import RegionEncoder, without_regions
from mmembed.models.sequence import PreparedMedium, Row
from mmembed.models.settings import PromptStyle, QwenVL, Side


@dataclass(frozen=True)
class Geometry:
    """What the checkpoint fixes: patches, tokens and special ids.

    Args:
        patch: side of a patch in pixels.
        merge: patches to a side of a token.
        temporal: frames to a patch.
        image_id: token that stands for a picture's tokens.
        video_id: token that stands for a clip's tokens.
        tokens_per_second: time positions a second of video (Qwen2.5-VL), None where a time step is one position.
        timestamps: whether a clip is written frame by frame with its seconds (Qwen3-VL).
    """

    patch: int
    merge: int
    temporal: int
    image_id: int
    video_id: int
    tokens_per_second: float | None = None
    timestamps: bool = False

    @property
    def factor(self) -> int:
        """Side of a token in pixels."""
        return self.patch * self.merge


@dataclass(frozen=True)
class _Prepared:
    medium: PreparedMedium
    size: tuple[int, int]
    """Width and height as decoded, which regions are relative to."""
    words: str
    pads: tuple[int, ...]
    """Tokens that each placeholder in ``words`` stands for."""
    time_step: float


class QwenVLPreprocessor:
    """Item -> Row; holds the tokenizer and the settings, no weights."""

    def __init__(
        self,
        tokenizer: Any,
        geometry: Geometry,
        settings: QwenVL,
        prompt: PromptStyle,
        regions: RegionEncoder | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.geometry = geometry
        self.settings = settings
        self.prompt = prompt
        self.regions = regions
        self.cache: MediaCache | None = None
        # what a prepared medium depends on besides its content
        self._preprocessing = [
            getattr(settings, name) for name in ("min_pixels", "max_pixels", "min_side", "resize", "media")
        ]
        self._words = {i: tokenizer.convert_ids_to_tokens(i) for i in (geometry.image_id, geometry.video_id)}

    def __call__(self, item: Item, side: Side) -> Row:
        """Decode, render, tokenize and place one item.

        Raises:
            InputError: a medium that cannot be read, media or regions that do not fit ``max_length``, or regions that
                are not in their picture or that no encoder would tell.
        """
        whole = without_regions(item)
        prepared = [self._prepare(medium) for medium in whole.media]
        told = self._region_words(item, prepared)
        segments = render(whole, self.prompt, [p.words for p in prepared], self._apply_template, told)
        ids, kinds, runs = self._tokenize(segments, prepared)
        mrope = self.settings.positions == "mrope"
        return Row(
            ids=torch.tensor(ids),
            kinds=torch.tensor(kinds, dtype=torch.uint8),
            positions=mrope_positions(runs) if mrope else sequential_positions(len(ids)),
            media=tuple(p.medium for p in prepared),
            side=side,
        )

    def _prepare(self, medium: Media) -> _Prepared:
        key = medium.fingerprint()
        found = self.cache.get(key) if self.cache is not None else None
        if found is None:
            found = self._decode(medium, key)
            if self.cache is not None:
                self.cache.put(key, found, found.medium.pixels.nbytes)
        return found

    def _region_words(self, item: Item, prepared: Sequence[_Prepared]) -> Sequence[str]:
        """For each medium the words that tell its regions."""
        if self.regions is not None:
            return self.regions.prepare(item, [p.size for p in prepared])
        marked = [medium for medium in item.media if isinstance(medium, Image) and medium.regions]
        if marked:
            raise InputError(
                "image.regions", expected="no regions: this model has no region encoder", got=len(marked[0].regions),
                remedy="set regions of the embedder, crop the picture, or say in words where to look",
            )  # fmt: skip
        return [""] * len(prepared)

    def _decode(self, medium: Media, key: str) -> _Prepared:
        frames = decode(medium, self.settings.media)
        pictures, g = list(frames.pictures), self.geometry
        is_video = isinstance(medium, Video)
        if not is_video:
            pictures = [enlarge_tiny(picture, self.settings.min_side) for picture in pictures]
        # the first frame decides for all, as in the published code
        width, height = pictures[0].size
        height, width = target_size(height, width, g.factor, self.settings.min_pixels, self.settings.max_pixels)
        arrays = [resize(picture, height, width, self.settings.resize) for picture in pictures]
        if is_video and len(arrays) == 1:
            arrays *= g.temporal
        pixels, grid = patchify(arrays, g.patch, g.merge, g.temporal)
        tokens = grid[1] * grid[2] // g.merge**2
        name = fingerprint(key, repr(self._preprocessing))
        words, pads = self._words[g.image_id], [grid[0] * tokens]
        if is_video:
            words = self._words[g.video_id]
            if g.timestamps:
                words, pads = self._timed_words(frames.timestamps_s), [tokens] * grid[0]
        time_step = self._time_step(frames.seconds_apart)
        return _Prepared(PreparedMedium(pixels, grid, name), frames.pictures[0].size, words, tuple(pads), time_step)

    def _timed_words(self, seconds: Sequence[float]) -> str:
        """Each temporal patch behind the mean of its first and last frame's seconds, as Qwen3-VL writes a clip."""
        temporal = self.geometry.temporal
        times = [*seconds, *[seconds[-1]] * (-len(seconds) % temporal)]
        pad = self._words[self.geometry.video_id]
        return "".join(
            f"<{(times[i] + times[i + temporal - 1]) / 2:.1f} seconds><|vision_start|>{pad}<|vision_end|>"
            for i in range(0, len(times), temporal)
        )

    def _time_step(self, seconds_apart: float) -> float:
        """Positions between two temporal patches: Qwen2.5-VL counts seconds, the others count patches."""
        rate = self.geometry.tokens_per_second
        return 1.0 if rate is None or not seconds_apart else rate * self.geometry.temporal * seconds_apart

    def _tokenize(self, segments: list[Segment], prepared: list[_Prepared]) -> tuple[list[int], list[int], list[Run]]:
        """Tokenize the whole prompt at once; offsets tell each token's segment, so no token is known by its looks."""
        text = "".join(s.text for s in segments)
        encoded = self.tokenizer(text, return_offsets_mapping=True)
        ends, end = [], 0
        for segment in segments:
            end += len(segment.text)
            ends.append(end)
        ids: list[int] = []
        kinds: list[int] = []
        runs: list[Run] = []
        pads = [iter(p.pads) for p in prepared]
        current = 0
        for token, (start, end) in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True):
            # a token that begins with a separator belongs to the word after it
            while current < len(segments) - 1 and max(start, end - 1) >= ends[current]:
                current += 1
            segment = segments[current]
            if segment.medium is not None and token in self._words:
                self._place(segment, token, prepared[segment.medium], next(pads[segment.medium]), ids, kinds, runs)
            else:
                ids.append(token)
                kinds.append(Kind.TEMPLATE if segment.medium is not None else segment.kind)
                runs.append(Run(1))
        return self._cut(ids, kinds, runs)

    def _place(
        self,
        segment: Segment,
        token: int,
        prepared: _Prepared,
        pads: int,
        ids: list[int],
        kinds: list[int],
        runs: list[Run],
    ) -> None:
        time, height, width = prepared.medium.grid
        merge = self.geometry.merge
        steps = 1 if len(prepared.pads) > 1 else time
        ids += [token] * pads
        kinds += [int(segment.kind)] * pads
        runs.append(Run(pads, (steps, height // merge, width // merge), prepared.time_step))

    def _cut(self, ids: list[int], kinds: list[int], runs: list[Run]) -> tuple[list[int], list[int], list[Run]]:
        """Cut words at the end, before a closing template; media and their regions are never cut."""
        limit = self.settings.max_length or self.tokenizer.model_max_length
        if len(ids) <= limit:
            return ids, kinds, runs
        closing = 0
        while closing < len(kinds) and kinds[-1 - closing] == Kind.TEMPLATE:
            closing += 1
        closing = min(closing, limit)
        keep = limit - closing
        if any(kind in (Kind.IMAGE, Kind.VIDEO, Kind.REGION) for kind in kinds[keep : len(kinds) - closing]):
            raise InputError(
                "item", expected=f"media and regions within max_length {limit}", got=f"{len(ids)} tokens, some past it",
                remedy="raise max_length or lower max_pixels",
            )  # fmt: skip
        tail = len(ids) - closing
        kept, taken = [], 0
        for run in runs:
            if taken < keep or taken >= tail:
                kept.append(run)
            taken += run.length
        return ids[:keep] + ids[tail:], kinds[:keep] + kinds[tail:], kept

    def _apply_template(self, messages: list[dict[str, Any]], generation_prompt: bool) -> str:
        if not self.tokenizer.chat_template:
            raise InputError("prompt", expected="a chat template in the checkpoint", got="none", remedy="use RawPrompt")
        text = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=generation_prompt)
        return str(text)
