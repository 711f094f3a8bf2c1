"""How the LLaVA family prepares a medium: cut it into tiles, and count the tokens that its placeholder stands for."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import PIL.Image

from mmembed.errors import InputError
from mmembed.files import fingerprint
from mmembed.items import Media, Video
from mmembed.media.video import Frames
from mmembed.models.backbones.llava.tiles import cut, make_processor, read_tiles
from mmembed.models.checkpoint import Checkpoint
from mmembed.models.media_preprocess import Prepared
from mmembed.models.preprocess import LanguagePreprocessor
from mmembed.models.region_encoders.preparer import RegionPreparer
from mmembed.models.sequence import PreparedMedium
from mmembed.models.settings import Llava, PromptStyle

# LLaVA's pictures are cut by whichever of these its preprocessor_config.json names
_ONE_TILE = ("CLIPImageProcessor", "LlavaImageProcessor", "SiglipImageProcessor")


class LlavaPreprocessor(LanguagePreprocessor):
    """See :class:`mmembed.models.preprocess.LanguagePreprocessor`.

    Args:
        checkpoint: its config, tokenizer and preprocessing facts are kept, not its weights.
        settings: of the backbone.
        prompt: how items are written.
        regions: how regions of pictures are told; None refuses them.
    """

    settings: Llava
    takes_video = False
    pixel_settings = ("resize", "media")
    smaller = "give fewer pictures"

    def __init__(
        self, checkpoint: Checkpoint, settings: Llava, prompt: PromptStyle, regions: RegionPreparer | None = None
    ) -> None:
        config = checkpoint.model.config
        self.image_id: int = config.image_token_id
        placeholders = {self.image_id: "image"}
        if self.takes_video:
            self.video_id: int = config.video_token_id
            placeholders[self.video_id] = "video"
        super().__init__(checkpoint.tokenizer, settings, prompt, regions, placeholders)
        self.tiles = read_tiles(config)
        kind = _processor_kind(config.model_type, checkpoint.preprocessing)
        self.processor: Any = make_processor(kind, checkpoint.preprocessing, self.tiles, settings.resize)

    @property
    def squares_one_tile(self) -> bool:
        """Whether a picture that is one tile is padded to a square, or stretched or cropped to it."""
        # of the processors of one tile, LLaVA's own alone pads
        return bool(getattr(self.processor, "do_pad", False))

    def prepare(self, medium: Media, frames: Frames, name: str) -> Prepared:
        """See :meth:`MediaPreprocessor.prepare`."""
        (picture,) = frames.pictures
        pixels = cut(self.processor, [picture])
        # no step in time: a still picture
        prepared = PreparedMedium(pixels, (0, *self.tiles.grid(*picture.size)), name, picture.size)
        return Prepared(prepared, self.words[self.image_id], (self.tiles.count(*picture.size),))


class OneVisionPreprocessor(LlavaPreprocessor):
    """LLaVA-OneVision: a picture alone in its item is cut into tiles; of several, each is one tile, padded to a square.

    So transformers' processor has it where it is told which pictures belong together.
    """

    takes_video = True
    squares_one_tile = True

    def __init__(
        self, checkpoint: Checkpoint, settings: Llava, prompt: PromptStyle, regions: RegionPreparer | None = None
    ) -> None:
        super().__init__(checkpoint, settings, prompt, regions)
        side = {"height": self.tiles.side, "width": self.tiles.side}
        one_tile = replace(self.tiles, sizes=None)
        self.frame_processor: Any = make_processor("SiglipImageProcessor", {"size": side}, one_tile, settings.resize)

    def prepare(self, medium: Media, frames: Frames, name: str) -> Prepared:
        """See :meth:`MediaPreprocessor.prepare`."""
        if not isinstance(medium, Video):
            return super().prepare(medium, frames, name)
        pixels = cut(self.frame_processor, frames.pictures)
        clip = PreparedMedium(pixels, (len(pixels), 1, 1), name, frames.pictures[0].size)
        # one line break ends the clip
        pads = (len(pixels) * self.tiles.frame_tokens + 1,)
        return Prepared(clip, self.words[self.video_id], pads)

    def prepare_all(self, media: Sequence[Media]) -> list[Prepared]:
        """See :meth:`LanguagePreprocessor.prepare_all`."""
        stills = sum(not isinstance(medium, Video) for medium in media)
        if stills < 2:
            return super().prepare_all(media)
        return [
            self._prepare(medium)
            if isinstance(medium, Video)
            else self._kept(medium, fingerprint(medium.fingerprint(), "among others"), self._among_others)
            for medium in media
        ]

    def _among_others(self, medium: Media, frames: Frames, name: str) -> Prepared:
        """A picture that is not its item's only one."""
        (picture,) = frames.pictures
        # the library pads to a square where it is given more than one; the other here is as small as can be
        pixels = cut(self.processor, [[picture, PIL.Image.new("RGB", (1, 1))]])[:1]
        one = PreparedMedium(pixels, (0, 0, 0), name, picture.size)
        return Prepared(one, self.words[self.image_id], (self.tiles.tokens + 1,))


def _processor_kind(architecture: str, facts: dict[str, Any]) -> str:
    """The library's image processor, without the ending that names how it resizes."""
    fixed = {"llava_next": "LlavaNextImageProcessor", "llava_onevision": "LlavaOnevisionImageProcessor"}
    if architecture in fixed:
        return fixed[architecture]
    named = str(facts.get("image_processor_type", _ONE_TILE[0])).removesuffix("Fast").removesuffix("Pil")
    if named not in _ONE_TILE:
        raise InputError(
            "preprocessor_config.json: image_processor_type", expected=f"one of {', '.join(_ONE_TILE)}", got=named,
            remedy="take config.json and preprocessor_config.json from the same checkpoint",
        )  # fmt: skip
    return named
