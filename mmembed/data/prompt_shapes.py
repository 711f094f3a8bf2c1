"""Points, boxes and scribbles that tell of the same place as an annotation does."""

import math
from typing import TypeAlias

import numpy as np
import PIL.Image
from PIL.ImageDraw import Draw

from mmembed.items import Box, Point, Region
from mmembed.media.regions import clip_box, eroded

Size: TypeAlias = tuple[int, int]
"""Width and height in pixels."""

_DEPTH = 8
"""Points stay off the edge by the side of a square of the region's area over this, where there is such a place."""
_BRUSH = 12
"""The same over this is the width of a stroke."""
_AROUND = 0.5
"""Points outside lie within this share of the box around the region from it, where there is such a place."""


class Annotation:
    """A box or mask of a picture, of which prompts are drawn.

    Args:
        region: a box or a mask, which lies in its picture but for the slack of annotators.
        size: width and height of the picture.
    """

    def __init__(self, region: Region, size: Size) -> None:
        self.size = size
        width, height = size
        if region.mask is not None:
            rows, columns = (np.flatnonzero(region.mask.any(axis)) for axis in (1, 0))
            left, top, right, bottom = (int(i) for i in (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))
            self.box: Box = (float(left), float(top), float(right), float(bottom))
            self.shape = region.mask[top:bottom, left:right].astype(bool)
        else:
            assert region.box is not None
            self.box = clip_box(region.box, width, height)
            left, top = math.floor(self.box[0]), math.floor(self.box[1])
            right, bottom = math.ceil(self.box[2]), math.ceil(self.box[3])
            self.shape = np.ones((bottom - top, right - left), dtype=bool)
        self.corner = (left, top)
        """Column and row of the first pixel of ``shape``, the part of the picture that is as large as the region."""
        self.side = math.sqrt(self.shape.sum())

    def inside(self, random: np.random.Generator) -> tuple[float, float]:
        """A point of the region, away from its edge if there is such a place."""
        depth = int(self.side / _DEPTH)
        while not (deep := eroded(self.shape, depth)).any():
            depth //= 2
        x, y = _drawn(deep, random)
        x0, y0, x1, y1 = self.box
        return (min(max(x + self.corner[0], x0), x1), min(max(y + self.corner[1], y0), y1))

    def outside(self, random: np.random.Generator) -> tuple[float, float] | None:
        """A point beside the region, near it if there is such a place; None where the region is all of the picture."""
        width, height = self.size
        x0, y0, x1, y1 = self.box
        beside, above = _AROUND * (x1 - x0), _AROUND * (y1 - y0)
        near = (x0 - beside, y0 - above, x1 + beside, y1 + above)
        for place in (clip_box(near, width, height), (0.0, 0.0, float(width), float(height))):
            left, top, right, bottom = (math.floor(place[0]), math.floor(place[1]), *map(math.ceil, place[2:]))
            free = np.ones((bottom - top, right - left), dtype=bool)
            rows, columns = self.shape.shape
            column, row = self.corner[0] - left, self.corner[1] - top
            free[row : row + rows, column : column + columns] = ~self.shape
            if free.any():
                x, y = _drawn(free, random)
                return (x + left, y + top)
        return None

    def points(self, most: int, share: float, random: np.random.Generator) -> tuple[Point, ...]:
        """Two points or more, the first inside.

        Args:
            most: how many there are at most.
            share: of the others that lies outside, as long as there is an outside.
            random: draws them.
        """
        found: list[Point] = [(*self.inside(random), 1)]
        for _ in range(1 + int(random.random() * (most - 1))):
            beside = self.outside(random) if random.random() < share else None
            found.append((*self.inside(random), 1) if beside is None else (*beside, 0))
        return tuple(found)

    def jittered(self, most: float, random: np.random.Generator) -> Box:
        """The box around the region, each side moved by up to a share ``most`` of its length, within the picture."""
        x0, y0, x1, y1 = self.box
        moved = [most * (2 * random.random() - 1) for _ in range(4)]
        wide, high = x1 - x0, y1 - y0
        off = (x0 + moved[0] * wide, y0 + moved[1] * high, x1 + moved[2] * wide, y1 + moved[3] * high)
        return clip_box(off, *self.size)

    def scribble(self, strokes: int, random: np.random.Generator) -> np.ndarray:
        """A few strokes from point to point of the region, as far as they run in it: bool ``[H, W]`` of the picture."""
        corners = [self.inside(random) for _ in range(strokes + 1)]
        left, top = self.corner
        canvas = PIL.Image.new("1", self.shape.shape[::-1])
        pixels = [(min(int(x) - left, canvas.width - 1), min(int(y) - top, canvas.height - 1)) for x, y in corners]
        Draw(canvas).line(pixels, fill=1, width=max(round(self.side / _BRUSH), 1))
        for pixel in pixels:
            canvas.putpixel(pixel, 1)
        mask = np.zeros(self.size[::-1], dtype=bool)
        rows, columns = self.shape.shape
        mask[top : top + rows, left : left + columns] = np.asarray(canvas) & self.shape
        return mask


def _drawn(places: np.ndarray, random: np.random.Generator) -> tuple[float, float]:
    """The middle of one of the pixels that are True."""
    found = np.flatnonzero(places)
    row, column = divmod(int(found[int(random.random() * len(found))]), places.shape[1])
    return (column + 0.5, row + 0.5)
