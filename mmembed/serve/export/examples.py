"""What an export is tried on: every kind of input that the model reads, with an instruction and without."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import PIL.Image
from PIL.Image import Image as Picture

from mmembed.items import Image, Item, Part, Video

INSTRUCTION = "Find the picture that shows it."
SHORT, LONG = "a red circle", "two words and a much longer text: the same, but blue, at night and in the rain"
CUT_WITHIN = 2048
"""A text over the limit of tokens is tried where the limit is no higher: a longer one takes long."""


@dataclass(frozen=True)
class Example:
    """Some items and the instruction for all of them.

    Args:
        name: what it is called in the table of differences.
        contents: parts of each item, in the order video, image, text.
        instruction: None for none.
    """

    name: str
    contents: tuple[tuple[Part, ...], ...]
    instruction: str | None = None

    @property
    def items(self) -> list[Item]:
        """As they are embedded here."""
        return [Item(content, self.instruction, verbatim=False) for content in self.contents]


ALL = "all kinds in one batch"


def examples(*, pictures: bool, clips: bool, limit: int, uneven: bool = True) -> Iterator[Example]:
    """All that a model reads, alone and together.

    Args:
        uneven: whether rows of one batch may have different numbers of pictures.
        pictures: whether it reads pictures.
        clips: whether it reads clips.
        limit: most tokens of a row.
    """
    contents: dict[str, tuple[Part, ...]] = {"text": (LONG,)}
    if pictures:
        first, second = Image(_draw(301, 197)), Image(_draw(64, 150))
        contents |= {"image": (first,), "image and text": (first, SHORT), "several images": (first, second, SHORT)}
    if clips:
        clip = Video(tuple(_draw(118, 90, seed) for seed in range(4)))
        contents |= {"video": (clip,), "video, image and text": (clip, Image(_draw(90, 90)), SHORT)}
    told = {"with an instruction": INSTRUCTION, "without": None}
    for name, content in contents.items():
        for how, instruction in told.items():
            yield Example(f"{name}, {how}", (content,), instruction)
    if pictures and uneven:
        yield Example(ALL, tuple(contents.values()), INSTRUCTION)
    elif pictures:
        yield Example("one picture each in one batch", (contents["image"], contents["image and text"]), INSTRUCTION)
    else:
        yield Example("long and short in one batch", ((LONG,), (SHORT,)), INSTRUCTION)
    if limit <= CUT_WITHIN:
        yield Example("a text over the limit", (("and another word " * limit,),), INSTRUCTION)


def as_foreign(content: tuple[Part, ...]) -> Any:
    """An item as sentence-transformers takes it: a text, or fields in order, one or a list of values each."""
    fields: dict[str, list[Any]] = {}
    for part in content:
        if isinstance(part, str):
            fields.setdefault("text", []).append(part)
        elif isinstance(part, Video):
            fields.setdefault("video", []).append(part)
        elif isinstance(part, Image):
            fields.setdefault("image", []).append(part.source)
    return {name: values[0] if len(values) == 1 else values for name, values in fields.items()}


def _draw(width: int, height: int, seed: int = 0) -> Picture:
    """A picture of coarse squares under noise: every resize shows in it."""
    generator = np.random.default_rng((seed, width, height))
    coarse = PIL.Image.fromarray(generator.integers(0, 256, (5, 7, 3), dtype=np.uint8)).resize((width, height))
    noise = generator.integers(-40, 41, (height, width, 3))
    return PIL.Image.fromarray((np.asarray(coarse, dtype=np.int64) + noise).clip(0, 255).astype(np.uint8))
