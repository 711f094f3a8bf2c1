"""How the Qwen-VL family prepares a medium: resize, cut into patches, write the words that stand for it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL.Image import Image as Picture
from PIL.Image import Resampling
from torch import Tensor

from mmembed.items import Media, Video
from mmembed.media.video import Frames
from mmembed.models.backbones.qwen_vl.pixels import enlarge_tiny, patchify, resize, target_size
from mmembed.models.media_preprocess import Prepared
from mmembed.models.positions import Run, mrope_positions, sequential_positions
from mmembed.models.preprocess import LanguagePreprocessor
from mmembed.models.region_encoders.preparer import RegionPreparer
from mmembed.models.sequence import PreparedMedium
from mmembed.models.settings import PromptStyle, QwenVL


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
    pixel_settings = ("min_pixels", "max_pixels", "min_side", "first_resize", "resize", "media")
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
        pictures, g = list(frames.pictures), self.geometry
        is_video = isinstance(medium, Video)
        if not is_video:
            pictures = [self._fetched(enlarge_tiny(picture, self.settings.min_side)) for picture in pictures]
        # the first frame decides for all, as in the published code
        width, height = pictures[0].size
        height, width = target_size(height, width, g.factor, self.settings.min_pixels, self.settings.max_pixels)
        arrays = [resize(picture, height, width, self.settings.resize) for picture in pictures]
        if is_video and len(arrays) == 1:
            arrays *= g.temporal
        pixels, grid = patchify(arrays, g.patch, g.merge, g.temporal)
        time, rows, columns = grid[0], grid[1] // g.merge, grid[2] // g.merge
        words, pads = self.words[g.image_id], [time * rows * columns]
        if is_video:
            words = self.words[g.video_id]
            if g.timestamps:
                words, pads = self._timed_words(frames.timestamps_s), [rows * columns] * time
        return Prepared(
            PreparedMedium(pixels, grid, name, frames.pictures[0].size),
            words,
            tuple(pads),
            # a placeholder for each step in time is placed as a picture of its own
            grid=(time if len(pads) == 1 else 1, rows, columns),
            time_step=self._time_step(frames.seconds_apart),
        )

    def positions(self, runs: Sequence[Run]) -> Tensor:
        """See :meth:`LanguagePreprocessor.positions`."""
        if self.settings.positions == "mrope":
            return mrope_positions(runs)
        return sequential_positions(sum(run.length for run in runs))

    def _fetched(self, picture: Picture) -> Picture:
        """A still picture after the resize that comes before the one into the model's own budget."""
        first = self.settings.first_resize
        if first is None:
            return picture
        height, width = target_size(
            picture.height, picture.width, self.geometry.factor, first.min_pixels, first.max_pixels
        )
        return picture.resize((width, height), Resampling.BICUBIC)

    def _timed_words(self, seconds: Sequence[float]) -> str:
        """Each temporal patch behind the mean of its first and last frame's seconds, as Qwen3-VL writes a clip."""
        temporal = self.geometry.temporal
        times = [*seconds, *[seconds[-1]] * (-len(seconds) % temporal)]
        pad = self.words[self.geometry.video_id]
        return "".join(
            f"<{(times[i] + times[i + temporal - 1]) / 2:.1f} seconds><|vision_start|>{pad}<|vision_end|>"
            for i in range(0, len(times), temporal)
        )

    def _time_step(self, seconds_apart: float) -> float:
        """Positions between two temporal patches: Qwen2.5-VL counts seconds, the others count patches."""
        rate = self.geometry.tokens_per_second
        return 1.0 if rate is None or not seconds_apart else rate * self.geometry.temporal * seconds_apart
