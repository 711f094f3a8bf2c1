"""Captions with a placeholder for their keywords, the way LinCIR is trained (arXiv:2312.01998)."""

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from data_prep.keywords import Tagger, by_rules, runs
from mmembed.errors import InputError, nearest
from mmembed.items import Item, Pair

Choose: TypeAlias = Callable[[Sequence[str]], str]
"""Draws one of several words."""
BARE = "a photo of {}"
"""What stands for a caption in which nothing could be masked."""


def cleaned(caption: str, placeholder: str = "$") -> str:
    """The caption as the published code reads it: ``<PERSON>`` is a person, small letters, and no placeholder."""
    return caption.replace("<PERSON>", "person").lower().replace(placeholder, "").strip()


def by_words(caption: str, tagger: Tagger, placeholder: str, choose: Choose) -> str:
    """Every run of keywords becomes one placeholder; without any, one of the words, drawn."""
    tokens = tagger(caption)
    found = [(run[0].start, run[-1].end) for run in runs(tokens)]
    words = [(token.start, token.end) for token in tokens if caption[token.start : token.end].strip()]
    if not found and words:
        chosen = choose([caption[start:end] for start, end in words])
        found = [next(place for place in words if caption[slice(*place)] == chosen)]
    if not found:
        return BARE.format(placeholder)
    pieces, last = [], 0
    for start, end in found:
        pieces.append(caption[last:start])
        last = end
    return _spaced(f" {placeholder} ".join([*pieces, caption[last:]]))


def by_replacing(caption: str, tagger: Tagger, placeholder: str, choose: Choose) -> str:
    """The published masking, which replaces the letters of a run wherever they stand, inside other words too.

    Where a run does not stand in the caption (its words are joined by single spaces), or there is none, all occurrences
    of one drawn piece between spaces are replaced, and the other runs are left.
    """
    found = [" ".join(caption[token.start : token.end] for token in run) for run in runs(tagger(caption))]
    masked = replaced_as_published(caption, found, f" {placeholder} ", choose)
    return _spaced(masked) if placeholder in masked else BARE.format(placeholder)


def replaced_as_published(caption: str, keywords: Sequence[str], mark: str, choose: Choose) -> str:
    """The published loop over the runs of a caption, with ``mark`` for each."""
    masked = caption
    for keyword in keywords or [""]:
        if not keyword or keyword not in caption:
            return masked.replace(choose(caption.split(" ")), mark)
        masked = masked.replace(keyword, mark)
    return masked


MASKINGS: Mapping[str, Callable[[str, Tagger, str, Choose], str]] = {"words": by_words, "str_replace": by_replacing}
"""Ways to mask: whole words, or what the published code does."""


@dataclass(frozen=True)
class Masking:
    """How captions are masked.

    Args:
        tagger: tells keywords from other words.
        way: one of :data:`MASKINGS`.
        placeholder: stands for a run of keywords.

    Raises:
        InputError: no such way, or a placeholder that would not be found again.
    """

    tagger: Tagger = by_rules
    way: str = "words"
    placeholder: str = "$"

    def __post_init__(self) -> None:
        if self.way not in MASKINGS:
            raise InputError("masking", expected="a way to mask", got=self.way, remedy=nearest(self.way, MASKINGS))
        if self.placeholder != "".join(self.placeholder.split()) or not self.placeholder:
            got = f"'{self.placeholder}'"
            raise InputError("placeholder", expected="marks without a space", got=got, remedy="$ is usual")

    def pair(self, caption: str) -> Pair:
        """The masked caption as the query, and the caption as the target.

        Raises:
            InputError: nothing is left of the caption.
        """
        clean = cleaned(caption, self.placeholder)
        if not clean:
            raise InputError("text", expected="a caption", got=f"'{caption}'", remedy="leave the row out")
        # what is drawn is a function of the caption
        choose = random.Random(clean).choice
        masked = MASKINGS[self.way](clean, self.tagger, self.placeholder, choose)
        return Pair(Item((masked,)), (Item((clean,)),))


def _spaced(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()
