"""How Phi-3.5-vision prepares a picture and a prompt: tiles, and text tokenized piece by piece between pictures."""

from collections.abc import Iterator, Sequence
from typing import Any

from mmembed.items import Media
from mmembed.media.video import Frames
from mmembed.models.backbones.phi3_v.pixels import cut, fit
from mmembed.models.media_preprocess import Prepared
from mmembed.models.preprocess import LanguagePreprocessor
from mmembed.models.prompts import Kind, Segment
from mmembed.models.region_encoders.preparer import RegionPreparer
from mmembed.models.sequence import PreparedMedium
from mmembed.models.settings import Phi3V, PromptStyle
from mmembed.models.tokens import Token, tokenize_whole

# no token stands for a picture, so one is looked up that is then overwritten; the published code takes the first, too
PICTURE = 0
# stands where published prompts say <|image_1|>, <|image_2|>; it is found by its place and never tokenized
WORDS = "<|image|>"


class Phi3VPreprocessor(LanguagePreprocessor):
    """See :class:`mmembed.models.preprocess.LanguagePreprocessor`.

    Args:
        tokenizer: of the checkpoint.
        side: of a tile in pixels.
        patch: side of a patch in pixels.
        settings: of the backbone.
        prompt: how items are written.
        regions: how regions of pictures are told; None refuses them.
    """

    settings: Phi3V
    takes_video = False
    image_word = "<|image_1|>"  # without a picture the published processor reads these words as any others
    pixel_settings = ("num_crops", "resize", "media")
    smaller = "lower num_crops"

    def __init__(
        self,
        tokenizer: Any,
        side: int,
        patch: int,
        settings: Phi3V,
        prompt: PromptStyle,
        regions: RegionPreparer | None = None,
    ) -> None:
        # the words of a picture are never tokenized, so there is no token of theirs to be checked
        super().__init__(tokenizer, settings, prompt, regions, placeholders={})
        self.words = {PICTURE: WORDS}
        self.side = side
        self.tokens_to_a_side = side // patch // 2

    def prepare(self, medium: Media, frames: Frames, name: str) -> Prepared:
        """See :meth:`MediaPreprocessor.prepare`."""
        picture = frames.pictures[0]
        pixels, grid = cut(fit(picture, self.settings.num_crops, self.side, self.settings.resize), self.side)
        return Prepared(
            PreparedMedium(pixels, grid, name, picture.size), WORDS, pads=(self._tokens(rows=grid[1], columns=grid[2]),)
        )

    def tokenize(self, segments: Sequence[Segment]) -> Iterator[Token]:
        """Each piece of text between pictures on its own, as the published processor does; empty ones, too."""
        piece: list[Segment] = []
        for segment in segments:
            if segment.medium is None and segment.free_for is None:
                piece.append(segment)
                continue
            # between a picture and the tokens kept free behind it is no piece
            if piece or segment.free_for is None:
                yield from self._tokenize_piece(piece)
            yield PICTURE, segment
            piece = []
        yield from self._tokenize_piece(piece)

    def _tokenize_piece(self, piece: list[Segment]) -> Iterator[Token]:
        # a tokenizer that begins every text with a token does so with an empty one
        return tokenize_whole(self.tokenizer, piece or [Segment("", Kind.TEMPLATE)])

    def _tokens(self, rows: int, columns: int) -> int:
        """Of a grid of tiles and the whole view: merged patches, a separator a line, and one between the two."""
        side = self.tokens_to_a_side
        return (rows * columns + 1) * side**2 + (rows + 1) * side + 1
