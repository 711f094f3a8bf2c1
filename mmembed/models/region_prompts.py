"""Regions on their way through the model: where they are in their picture, and which tokens tell of them."""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from mmembed.files import fingerprint
from mmembed.items import Box, Image, Point, Region
from mmembed.media.regions import check_regions, clip_box

Size: TypeAlias = tuple[int, int]
"""Width and height in pixels."""


@dataclass(frozen=True)
class RegionPrompt:
    """A region of a picture of known size: a box, points or a mask, coordinates as shares of the picture's sides.

    Args:
        size: width and height of the picture that the region was given in, in pixels.
        box: ``(x0, y0, x1, y1)`` in [0, 1].
        points: ``(x, y, label)`` in [0, 1], with label 1 for inside and 0 for outside.
        mask: bool ``[H, W]`` of the picture's own size.
    """

    size: Size
    box: Box | None = None
    points: tuple[Point, ...] = ()
    mask: np.ndarray | None = None

    @classmethod
    def of(cls, region: Region, size: Size) -> "RegionPrompt":
        """The region of a picture of ``size``; what leaves it by the slack of annotators is cut."""
        width, height = size
        box = None if region.box is None else _shares(clip_box(region.box, width, height), size)
        points = tuple((_share(x, width), _share(y, height), label) for x, y, label in region.points)
        # numbers, of which all but 0 are inside, would otherwise count as weights
        mask = None if region.mask is None else region.mask.astype(bool)
        return cls(size, box, points, mask)

    @property
    def bounds(self) -> Box:
        """The smallest box around it, in shares of the picture's sides; of points, around those inside."""
        if self.box is not None:
            return self.box
        if self.mask is not None:
            height, width = self.mask.shape
            rows, columns = (np.flatnonzero(self.mask.any(axis)) for axis in (1, 0))
            x0, y0, x1, y1 = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
            return (float(x0 / width), float(y0 / height), float(x1 / width), float(y1 / height))
        inside = [(x, y) for x, y, label in self.points if label] or [(x, y) for x, y, _ in self.points]
        xs, ys = zip(*inside, strict=True)
        return (min(xs), min(ys), max(xs), max(ys))

    def fingerprint(self) -> str:
        """Names all of it."""
        mask = b"" if self.mask is None else self.mask.tobytes()
        return fingerprint(repr(self.size), repr(self.box), repr(self.points), mask)


@dataclass(frozen=True)
class RegionSlot:
    """Tokens of a row that tell of one region.

    Args:
        medium: which medium of its row, or of its batch, the region is in.
        tokens: how many.
        prompt: the region; None for an encoder that has tokens for a picture without one, too.
        row: which row of the batch.
    """

    medium: int
    tokens: int
    prompt: RegionPrompt | None
    row: int = 0

    def fingerprint(self) -> str:
        """Names all of it but the place of its row."""
        return fingerprint(str(self.medium), str(self.tokens), "" if self.prompt is None else self.prompt.fingerprint())


def prompts_of(image: Image, size: Size) -> list[RegionPrompt]:
    """The regions of a picture of ``size``.

    Raises:
        InputError: one of them leaves the picture.
    """
    check_regions(image, *size)
    return [RegionPrompt.of(region, size) for region in image.regions]


def _shares(box: Box, size: Size) -> Box:
    (x0, y0, x1, y1), (width, height) = box, size
    return (x0 / width, y0 / height, x1 / width, y1 / height)


def _share(value: float, length: int) -> float:
    return min(max(value / length, 0.0), 1.0)
