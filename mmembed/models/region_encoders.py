"""Region encoders: how a model is told which places of a picture are meant.

The pictures themselves are prepared without their regions, so that one with another box is decoded, kept in memory and
passed through the tower once. An encoder says what is added to that.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TypeAlias

from mmembed.errors import InputError
from mmembed.items import Image, Item, Region
from mmembed.media.regions import check_regions
from mmembed.media.sources import source_name

Size: TypeAlias = tuple[int, int]
"""Width and height in pixels."""


class RegionEncoder(ABC):
    """Says the regions of an item in words, for a model that has no other input for them."""

    @abstractmethod
    def prepare(self, item: Item, sizes: Sequence[Size]) -> tuple[str, ...]:
        """For each medium of the item, in order, the words to put right behind it; empty where nothing is pointed at.

        Args:
            item: with or without regions.
            sizes: of each medium as decoded, in order: what coordinates are relative to.

        Raises:
            InputError: a region leaves its picture, or is of a kind that this encoder cannot tell.
        """

    @abstractmethod
    def vocabulary(self) -> Iterator[str]:
        """Texts with every word that it may say: what a scratch tokenizer learns them from."""


class TextRegionEncoder(RegionEncoder):
    """Coordinates in words, counted in steps of the picture's sides: ``(box 2 1 6 7)``, ``(point 5 3)``, ``(not 0 0)``.

    Args:
        scale: how many steps a side is counted in.
    """

    def __init__(self, scale: int) -> None:
        self.scale = scale

    def prepare(self, item: Item, sizes: Sequence[Size]) -> tuple[str, ...]:
        """See :meth:`RegionEncoder.prepare`. A point outside of what is meant begins with ``not``."""
        return tuple(
            " ".join(self._words(medium, size)) if isinstance(medium, Image) else ""
            for medium, size in zip(item.media, sizes, strict=True)
        )

    def vocabulary(self) -> Iterator[str]:
        """See :meth:`RegionEncoder.vocabulary`."""
        for step in range(self.scale + 1):
            yield f"(box {step} {step} {step} {step}) (point {step} {step}) (not {step} {step})"

    def _words(self, image: Image, size: Size) -> Iterator[str]:
        check_regions(image, *size)
        for number, region in enumerate(image.regions):
            if region.mask is not None:
                raise InputError(
                    f"{source_name(image.source)}: regions[{number}]", expected="a box or points, which words can tell",
                    got="a mask", remedy="give the box around it",
                )  # fmt: skip
            yield from self._words_of(region, size)

    def _words_of(self, region: Region, size: Size) -> Iterator[str]:
        if region.box is not None:
            x0, y0, x1, y1 = region.box
            yield f"(box {self._steps((x0, y0), size)} {self._steps((x1, y1), size)})"
        for x, y, inside in region.points:
            yield f"({'point' if inside else 'not'} {self._steps((x, y), size)})"

    def _steps(self, place: tuple[float, float], size: Size) -> str:
        shares = (value / length for value, length in zip(place, size, strict=True))
        # a place may miss the picture by the slack of check_regions
        return " ".join(str(round(min(max(share, 0.0), 1.0) * self.scale)) for share in shares)


def without_regions(item: Item) -> Item:
    """The item with its pictures as a whole."""
    parts = (replace(part, regions=()) if isinstance(part, Image) else part for part in item.content)
    return replace(item, content=tuple(parts))
