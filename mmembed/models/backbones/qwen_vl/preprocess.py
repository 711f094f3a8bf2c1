"""How the Qwen-VL family prepares a medium: resize, cut into patches, write the words that stand for it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL.Image import Image as Picture
from PIL.Image import Resampling
from torch import Tensor

from mmembed.items import Media, Video
from mmembed.media.video import Frames, is_stills
from mmembed.models.backbones.qwen_vl.pixels import Resize, enlarge_tiny, patchify, resize, target_size
from mmembed.models.media_preprocess import Prepared
from mmembed.models.positions import Run, mrope_positions, sequential_positions
from mmembed.models.preprocess import LanguagePreprocessor
from mmembed.models.region_encoders.preparer import RegionPreparer
from mmembed.models.sequence import PreparedMedium
from mmembed.models.settings import ChatPrompt, PixelBudget, PromptStyle, QwenVL

START, END = "<|vision_start|>", "<|vision_end|>"


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


class QwenVLPreprocessor(LanguagePreprocessor):
    """See :class:`mmembed.models.preprocess.LanguagePreprocessor`."""

    settings: QwenVL
    pixel_settings = ("min_pixels", "max_pixels", "min_side", "first_resize", "thin", "clips", "resize", "media")
    smaller = "lower max_pixels"

    def __init__(
        self,
        tokenizer: Any,
        geometry: Geometry,
        settings: QwenVL,
        prompt: PromptStyle,
        regions: RegionPreparer | None = None,
    ) -> None:
        self.geometry = geometry
        placeholders = {geometry.image_id: "image", geometry.video_id: "video"}
        super().__init__(tokenizer, settings, prompt, regions, placeholders)

    def prepare(self, medium: Media, frames: Frames, name: str) -> Prepared:
        """See :meth:`MediaPreprocessor.prepare`."""
        g, is_clip = self.geometry, self._is_clip(medium)
        pixels, grid = self._patches(self._resized(medium, frames), is_clip)
        time, rows, columns = grid[0], grid[1] // g.merge, grid[2] // g.merge
        words, pads = self.words[g.video_id if is_clip else g.image_id], [time * rows * columns]
        if is_clip and g.timestamps:
            words, pads = self._timed_words(frames.timestamps_s), [rows * columns] * time
        elif isinstance(medium, Video) and not is_clip:
            words, pads = self._several_words(time), [rows * columns] * time
        return Prepared(
            PreparedMedium(pixels, grid, name, frames.pictures[0].size),
            words,
            tuple(pads),
            # a placeholder for each step in time is placed as a picture of its own
            grid=(time if len(pads) == 1 else 1, rows, columns),
            time_step=self._time_step(frames.seconds_apart),
        )

    @property
    def placeholders(self) -> tuple[str, ...]:
        """See :attr:`LanguagePreprocessor.placeholders`; a clip may stand for the template's pair around it, too."""
        clips, pad = self.settings.clips, self.words[self.geometry.video_id]
        gives_way = clips.as_pictures or (self.geometry.timestamps and not clips.outer_tokens)
        return ((START + pad + END,) if gives_way else ()) + super().placeholders

    def positions(self, runs: Sequence[Run]) -> Tensor:
        """See :meth:`LanguagePreprocessor.positions`."""
        if self.settings.positions == "mrope":
            return mrope_positions(runs)
        return sequential_positions(sum(run.length for run in runs))

    def _is_clip(self, medium: Media) -> bool:
        """Whether a medium is shown as moving."""
        return isinstance(medium, Video) and not self.settings.clips.as_pictures

    def _resized(self, medium: Media, frames: Frames) -> list[np.ndarray]:
        """The pictures at the size that the tower sees, uint8 ``[H, W, 3]`` each."""
        settings, pictures = self.settings, list(frames.pictures)
        budget: tuple[float, float] = (settings.min_pixels, settings.max_pixels)
        backend: Resize = settings.resize
        first = settings.first_resize
        if isinstance(medium, Video) and self._is_clip(medium):
            budget = self._clip_budget(len(pictures))
            backend = settings.clips.resize or backend
            factor = settings.clips.stills_factor
            first = None if factor is None or not is_stills(medium) else _stills_budget(factor)
        else:
            pictures = [enlarge_tiny(picture, settings.min_side) for picture in pictures]
        pictures = pictures if first is None else [self._fetched(picture, first) for picture in pictures]
        # the first frame decides for all, as in the published code
        width, height = pictures[0].size
        height, width = target_size(height, width, self.geometry.factor, *budget, settings.thin)
        return [resize(picture, height, width, backend) for picture in pictures]

    def _clip_budget(self, frames: int) -> tuple[float, float]:
        """At least and at most so many pixels has each frame of a clip of so many."""
        (least, most), total = self.settings.clip_pixels, self.settings.clips.total_pixels
        if total is None:
            return least, most
        temporal = self.geometry.temporal
        seen = math.ceil(frames / temporal)
        return least, max(min(most, total / seen), int(least * 1.05))

    def _fetched(self, picture: Picture, first: PixelBudget) -> Picture:
        """A picture after the resize that comes before the one into the model's own budget."""
        factor = first.factor or self.geometry.factor
        budget = (first.min_pixels, first.max_pixels)
        height, width = target_size(picture.height, picture.width, factor, *budget, self.settings.thin)
        return picture.resize((width, height), Resampling.BICUBIC)

    def _patches(self, arrays: Sequence[np.ndarray], is_clip: bool) -> tuple[Tensor, tuple[int, int, int]]:
        """Patches and their grid; pictures of one clip follow one another in time."""
        g = self.geometry
        if is_clip:
            # a clip of one frame has no still picture's patches
            moving = arrays if len(arrays) > 1 else [*arrays] * g.temporal
            return patchify(moving, g.patch, g.merge, g.temporal)
        stills = [patchify([array], g.patch, g.merge, g.temporal) for array in arrays]
        _, rows, columns = stills[0][1]
        return torch.cat([pixels for pixels, _ in stills]), (len(stills), rows, columns)

    def _several_words(self, count: int) -> str:
        """So many pictures, one behind another, as a chat template writes them."""
        pad = self.words[self.geometry.image_id]
        return (START + pad + END if isinstance(self.prompt, ChatPrompt) else pad) * count

    def _timed_words(self, seconds: Sequence[float]) -> str:
        """Each temporal patch behind the mean of its first and last frame's seconds, as Qwen3-VL writes a clip."""
        temporal = self.geometry.temporal
        times = [*seconds, *[seconds[-1]] * (-len(seconds) % temporal)]
        pad = self.words[self.geometry.video_id]
        return "".join(
            f"<{(times[i] + times[i + temporal - 1]) / 2:.1f} seconds>{START}{pad}{END}"
            for i in range(0, len(times), temporal)
        )

    def _time_step(self, seconds_apart: float) -> float:
        """Positions between two temporal patches: Qwen2.5-VL counts seconds, the others count patches."""
        rate = self.geometry.tokens_per_second
        return 1.0 if rate is None or not seconds_apart else rate * self.geometry.temporal * seconds_apart


def _stills_budget(factor: int) -> PixelBudget:
    """What ``qwen-vl-utils`` allows a picture whose sides are multiples of ``factor``."""
    return PixelBudget(4 * factor**2, 16384 * factor**2, factor)
