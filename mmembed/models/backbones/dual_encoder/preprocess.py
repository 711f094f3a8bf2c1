"""How a dual encoder prepares an item: its pictures as open_clip resizes them, its words as open_clip cuts them.

A row is one token for each patch of its media, which the image tower reads, and the tokens of its text.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import ImageOps
from PIL.Image import Image as Picture
from torchvision.transforms import CenterCrop, Compose, Normalize, ToTensor

from mmembed.errors import InputError
from mmembed.items import Item, Media
from mmembed.media.video import Frames
from mmembed.models.media_preprocess import MediaPreprocessor, Prepared
from mmembed.models.positions import sequential_positions
from mmembed.models.prompts import Kind, Segment, medium_kind, render
from mmembed.models.region_encoders.preparer import RegionPreparer
from mmembed.models.sequence import PreparedMedium, Row
from mmembed.models.settings import DualEncoder, PromptStyle, RawPrompt, Side

PATCH = -1
"""The id of a token that stands for a patch; no vocabulary has it."""
TARGET_ASPECT = 1.25


class DualEncoderPreprocessor(MediaPreprocessor):
    """Item -> Row; holds the tokenizer, the transform and the settings, no weights.

    Args:
        tokenizer: open_clip's own of the model.
        preprocessing: ``preprocess_cfg`` of the model.
        grid: rows and columns of patches of a picture.
        settings: of the backbone.
        prompt: how items are written.
        regions: how regions of pictures are told; None refuses them.

    Raises:
        InputError: a prompt that needs a chat template.
    """

    settings: DualEncoder
    pixel_settings = ("transform", "media")

    def __init__(
        self,
        tokenizer: Any,
        preprocessing: dict[str, Any],
        grid: tuple[int, int],
        settings: DualEncoder,
        prompt: PromptStyle,
        regions: RegionPreparer | None,
    ) -> None:
        if not isinstance(prompt, RawPrompt):
            raise InputError(
                "prompt", expected="RawPrompt: a dual encoder has no chat template", got=type(prompt).__name__,
                remedy="use RawPrompt",
            )  # fmt: skip
        super().__init__(settings, prompt, regions)
        self.tokenizer = tokenizer
        self.grid = grid
        self.pad = int(tokenizer([""])[0, -1])
        whole = image_transform_v2(PreprocessCfg(**preprocessing), is_train=False)
        # what remains to be done is done where the tower runs, on a quarter of the bytes
        steps = [step for step in whole.transforms if not isinstance(step, ToTensor | Normalize)]
        if settings.transform == "transformers":
            steps = [FloorCrop(step.size) if isinstance(step, CenterCrop) else step for step in steps]
        self.transform = Compose(steps)

    def __call__(self, item: Item, side: Side) -> Row:
        """Decode, render and tokenize one item.

        Raises:
            InputError: a medium that cannot be read, or regions that are not in their picture, that no encoder would
                tell, or that do not fit the text tower's context.
        """
        prepared = [self._prepare(medium) for medium in self._seen(item).media]
        told = self._region_words(item, prepared)
        segments = render(item, self.prompt, [p.words for p in prepared], region_words=told)
        self._refuse_cut_regions(segments)
        text = "".join(s.text for s in segments)
        words = self.read(text) if text.strip() or not prepared else []
        patches = [medium_kind(medium) for medium, p in zip(item.media, prepared, strict=True) for _ in range(*p.pads)]
        return Row(
            ids=torch.tensor([PATCH] * len(patches) + words),
            kinds=torch.tensor([*patches, *[Kind.TEXT] * len(words)], dtype=torch.uint8),
            positions=sequential_positions(len(patches) + len(words)),
            media=tuple(p.medium for p in prepared),
            side=side,
        )

    def text_row(self, text: str) -> Row:
        """A row of a text as it is."""
        ids = torch.tensor(self.read(text))
        kinds = torch.full_like(ids, int(Kind.TEXT), dtype=torch.uint8)
        return Row(ids, kinds, sequential_positions(len(ids)), (), "query")

    def filler(self) -> Item:
        """A small item for which both towers run, and a composer's weights; with a region where there is an encoder."""
        return Item((self.filler_picture(), "filler"), verbatim=False)

    def read(self, text: str) -> list[int]:
        """The text's tokens, cut at the tower's context as open_clip cuts them, without the padding behind them."""
        ids = self.tokenizer([text])[0]
        real = (ids != self.pad).nonzero()
        return list(ids[: int(real[-1]) + 1 if len(real) else 1].tolist())

    def _refuse_cut_regions(self, segments: Sequence[Segment]) -> None:
        last = max((i for i, segment in enumerate(segments) if segment.kind is Kind.REGION), default=-1)
        context = self.tokenizer.context_length
        if last >= 0 and len(self.read("".join(s.text for s in segments[: last + 1]))) >= context:
            raise InputError(
                "image.regions", expected=f"regions in words within the text tower's {context} tokens", got="more",
                remedy="name fewer regions",
            )  # fmt: skip

    def prepare(self, medium: Media, frames: Frames, name: str) -> Prepared:
        """See :meth:`MediaPreprocessor.prepare`."""
        pad = target_pad if self.settings.transform == "targetpad" else Picture.copy
        arrays = [np.asarray(self.transform(pad(picture))) for picture in frames.pictures]
        pixels = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2)[:, :, None].contiguous()
        grid = (len(arrays), *self.grid)
        # a space, lest the words on both sides of it become one
        prepared = PreparedMedium(pixels, grid, name, frames.pictures[0].size)
        return Prepared(prepared, " ", (grid[0] * grid[1] * grid[2],))


class FloorCrop:
    """The middle of a picture, the smaller half of an odd number of pixels cut off left and above.

    Args:
        size: height and width that are left.
    """

    def __init__(self, size: Sequence[int]) -> None:
        self.size = size

    def __call__(self, picture: Picture) -> Picture:
        """The part that is left."""
        height, width = self.size
        left, top = (picture.width - width) // 2, (picture.height - height) // 2
        return picture.crop((left, top, left + width, top + height))


def target_pad(picture: Picture) -> Picture:
    """A picture longer than an aspect of 1.25 with black on both sides of its shorter one (arXiv:2303.15247)."""
    shorter = max(picture.size) / TARGET_ASPECT
    beside, above = (max(int((shorter - side) / 2), 0) for side in picture.size)
    return ImageOps.expand(picture, (beside, above, beside, above)) if beside or above else picture
