"""How Llama-3.2-Vision takes a picture: fitted to a canvas of up to four tiles, and one token where it stands."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from transformers import MllamaImageProcessor, MllamaImageProcessorPil

from mmembed.items import Media
from mmembed.media.video import Frames
from mmembed.models.media_preprocess import Prepared
from mmembed.models.preprocess import LanguagePreprocessor
from mmembed.models.prompts import Kind, Segment
from mmembed.models.region_encoders.preparer import RegionPreparer
from mmembed.models.sequence import PreparedMedium
from mmembed.models.settings import Mllama, PromptStyle
from mmembed.models.tokens import Token, tokenize_whole


class MllamaPreprocessor(LanguagePreprocessor):
    """See :class:`mmembed.models.preprocess.LanguagePreprocessor`.

    Args:
        tokenizer: of the checkpoint.
        config: of the checkpoint: its image token, and the tiles that the tower takes.
        preprocessing: what ``preprocessor_config.json`` says.
        settings: of the backbone.
        prompt: how items are written.
        regions: how regions of pictures are told; None refuses them.
    """

    settings: Mllama
    takes_video = False
    pixel_settings = ("resize", "media")

    def __init__(
        self,
        tokenizer: Any,
        config: Any,
        preprocessing: Mapping[str, Any],
        settings: Mllama,
        prompt: PromptStyle,
        regions: RegionPreparer | None = None,
    ) -> None:
        self.image_id = config.image_token_index
        super().__init__(tokenizer, settings, prompt, regions, {self.image_id: "image"})
        vision = config.vision_config
        self.arrangements = [tuple(shape) for shape in vision.supported_aspect_ratios]
        self._adds_bos = tokenizer("").input_ids[:1] == [tokenizer.bos_token_id]
        make = MllamaImageProcessorPil if settings.resize == "pil" else MllamaImageProcessor
        self._cut_tiles = make(
            size={"height": vision.image_size, "width": vision.image_size},
            max_image_tiles=vision.max_num_tiles,
            resample=preprocessing.get("resample", 2),
            # pixels stay uint8 until they are on the device
            do_rescale=False,
            do_normalize=False,
            do_convert_rgb=False,
        )

    def prepare(self, medium: Media, frames: Frames, name: str) -> Prepared:
        """See :meth:`MediaPreprocessor.prepare`; the grid counts tiles."""
        picture = frames.pictures[0]
        # said to Pillow's, which else must guess where the channels are in a picture of three pixels' height
        layout = {"input_data_format": "channels_last"} if self.settings.resize == "pil" else {}
        cut = self._cut_tiles([picture], return_tensors="pt", **layout)
        rows, columns = self.arrangements[int(cut["aspect_ratio_ids"]) - 1]
        tiles = cut["pixel_values"][0, 0, : rows * columns].to(torch.uint8)
        return Prepared(
            PreparedMedium(tiles[:, :, None], (1, rows, columns), name, picture.size), self.words[self.image_id], (1,)
        )

    def tokenize(self, segments: Sequence[Segment]) -> Iterator[Token]:
        """The whole string at once, begun as the library's processor begins it."""
        return tokenize_whole(self.tokenizer, self._begun(segments))

    def _begun(self, segments: Sequence[Segment]) -> Sequence[Segment]:
        """With one beginning-of-text token: behind the pictures that a prompt starts with, if it has none yet."""
        word = self.tokenizer.bos_token
        if self._adds_bos or any(word in s.text for s in segments if s.kind is Kind.TEMPLATE):
            return segments
        first = next((i for i, segment in enumerate(segments) if segment.medium is None), len(segments))
        return [*segments[:first], Segment(word, Kind.TEMPLATE), *segments[first:]]
