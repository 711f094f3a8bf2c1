"""Regions drawn into their picture, for any model that sees pictures."""

import colorsys
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import PIL.Image
from PIL.Image import Image as Picture
from PIL.ImageDraw import Draw, ImageDraw

from mmembed.items import Image, Media
from mmembed.media.regions import eroded, pixels_of
from mmembed.models.region_encoders.preparer import RegionPreparer
from mmembed.models.region_prompts import RegionPrompt, RegionSlot, Size, prompts_of
from mmembed.models.settings.regions.marks import Overlay

_FULL = 255
# colours this far apart in hue stay apart however many there are; the first is red
_GOLDEN = 0.618034
_DISC = 2
"""Radius of a point in widths of a line."""


class OverlayPreparer(RegionPreparer):
    """Draws the regions of a picture one after another, each in a colour of its own, the first in red.

    Args:
        settings: shape, width and cover of what is drawn.
    """

    changes_pixels: ClassVar[bool] = True

    def __init__(self, settings: Overlay) -> None:
        self.settings = settings

    def slots(self, number: int, medium: Media, size: Size) -> Sequence[RegionSlot]:
        """See :meth:`RegionPreparer.slots`; there are none."""
        return []

    def redraw(self, image: Image, picture: Picture) -> Picture:
        """See :meth:`RegionPreparer.redraw`."""
        drawn = picture.copy()
        for number, prompt in enumerate(prompts_of(image, picture.size)):
            drawn.paste(_colour(number), (0, 0), self._cover(prompt, picture.size))
        return drawn

    def _cover(self, prompt: RegionPrompt, size: Size) -> Picture:
        """How much of each pixel the mark of a region covers, 0 to 255."""
        line = max(round(self.settings.line * max(size)), 1)
        full = round(self.settings.alpha * _FULL)
        if prompt.mask is not None:
            mask = prompt.mask.astype(bool)
            half = round(self.settings.alpha * _FULL / 2)
            cover = np.where(eroded(mask, line), half, full) * mask
            return PIL.Image.fromarray(cover.astype(np.uint8))
        canvas = PIL.Image.new("L", size)
        draw = Draw(canvas)
        if prompt.box is not None:
            self._outline(draw, pixels_of(prompt.box, *size), full, line)
        for x, y, inside in prompt.points:
            _disc(draw, x * size[0], y * size[1], full, line, filled=bool(inside))
        return canvas

    def _outline(self, draw: ImageDraw, corners: tuple[int, int, int, int], full: int, line: int) -> None:
        shape = draw.ellipse if self.settings.shape == "ellipse" else draw.rectangle
        left, top, right, bottom = corners
        # Pillow's lines would leave a box that has no room for two of them
        narrow = min(right - left, bottom - top) < 2 * line
        shape(corners, fill=full if narrow else None, outline=None if narrow else full, width=line)


def _disc(draw: ImageDraw, x: float, y: float, full: int, line: int, *, filled: bool) -> None:
    radius = _DISC * line
    # the pixel that the point lies in
    column, row = int(x), int(y)
    corners = (column - radius, row - radius, column + radius, row + radius)
    draw.ellipse(corners, fill=full if filled else None, outline=full, width=line)


def _colour(number: int) -> tuple[int, int, int]:
    red, green, blue = colorsys.hsv_to_rgb(number * _GOLDEN % 1, 1, 1)
    return (round(red * _FULL), round(green * _FULL), round(blue * _FULL))
