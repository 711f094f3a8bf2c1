"""How a model of text alone reads an Item: its words, between the tokens that the tokenizer puts around them."""

from collections.abc import Iterator, Sequence
from itertools import takewhile
from typing import Any

from mmembed.errors import InputError
from mmembed.items import Item, Media
from mmembed.models.preprocess import LanguagePreprocessor
from mmembed.models.prompts import Kind, Segment
from mmembed.models.region_encoders.preparer import RegionPreparer
from mmembed.models.settings import PromptStyle, TextModel
from mmembed.models.tokens import Token, tokenize_whole

_AROUND = Segment("", Kind.TEMPLATE)


class TextPreprocessor(LanguagePreprocessor):
    """See :class:`mmembed.models.preprocess.LanguagePreprocessor`; any medium is refused."""

    takes_video = False

    def __init__(
        self, tokenizer: Any, settings: TextModel, prompt: PromptStyle, regions: RegionPreparer | None = None
    ) -> None:
        super().__init__(tokenizer, settings, prompt, regions, {})
        added = tokenizer("a", return_special_tokens_mask=True)["special_tokens_mask"]
        self._before, self._after = (len(list(takewhile(bool, side))) for side in (added, reversed(added)))

    def filler(self) -> Item:
        """A small item for which every part of the model runs: a word."""
        return Item(("filler",))

    def tokenize(self, segments: Sequence[Segment]) -> Iterator[Token]:
        """The whole string at once; what the tokenizer puts around it is template, which a cut leaves in place."""
        tokens = list(tokenize_whole(self.tokenizer, segments or [_AROUND]))
        last = len(tokens) - self._after
        for i, (token, segment) in enumerate(tokens):
            yield token, segment if self._before <= i < last else _AROUND

    def refuse_unread(self, medium: Media) -> None:
        """See :meth:`MediaPreprocessor.refuse_unread`; it reads none."""
        name = type(medium).__name__.lower()
        raise InputError(
            f"item.{name}", expected="text: this model reads text only", got=f"medium of kind {name}",
            remedy="leave it out, say in words what it shows, or take a model that reads pictures",
        )  # fmt: skip
