"""The picture cut to its one region, for any model that sees pictures."""

import math
from collections.abc import Sequence
from typing import ClassVar

from PIL.Image import Image as Picture

from mmembed.errors import InputError
from mmembed.items import Box, Image, Media
from mmembed.media.sources import source_name
from mmembed.models.region_encoders.preparer import RegionPreparer
from mmembed.models.region_prompts import RegionPrompt, RegionSlot, Size, prompts_of
from mmembed.models.settings.regions.marks import Crop

_EDGE = 1e-6
"""Of a pixel: shares are rounded, lest the edge of a pixel counts as the next one."""


class CropPreparer(RegionPreparer):
    """Cuts a picture to what is around its region; of a mask, to the smallest box around it.

    Args:
        settings: how much around it is kept.
    """

    changes_pixels: ClassVar[bool] = True

    def __init__(self, settings: Crop) -> None:
        self.settings = settings

    def slots(self, number: int, medium: Media, size: Size) -> Sequence[RegionSlot]:
        """See :meth:`RegionPreparer.slots`; there are none, and ``size`` is that of the crop."""
        return []

    def redraw(self, image: Image, picture: Picture) -> Picture:
        """See :meth:`RegionPreparer.redraw`.

        Raises:
            InputError: a region leaves its picture, there are several, or points say what is not meant.
        """
        prompts = prompts_of(image, picture.size)
        if len(prompts) != 1:
            raise InputError(
                f"{source_name(image.source)}: regions", expected="one region, which the picture is cut to",
                got=len(prompts), remedy="give the picture once for each of them",
            )  # fmt: skip
        if any(not inside for _, _, inside in prompts[0].points):
            raise InputError(
                f"{source_name(image.source)}: regions[0].points", expected="points inside, which a crop can tell",
                got="a point with label 0", remedy="leave it out, or use another region encoder",
            )  # fmt: skip
        return picture.crop(self._corners(prompts[0], picture.size))

    def _corners(self, prompt: RegionPrompt, size: Size) -> tuple[int, int, int, int]:
        """The pixels that are kept, right and bottom edges excluded; at least one."""
        width, height = size
        x0, y0, x1, y1 = self._kept(prompt.bounds, size, bool(prompt.points))
        left, top = min(max(math.floor(x0), 0), width - 1), min(max(math.floor(y0), 0), height - 1)
        return (left, top, max(min(math.ceil(x1), width), left + 1), max(min(math.ceil(y1), height), top + 1))

    def _kept(self, bounds: Box, size: Size, points: bool) -> Box:
        (x0, y0, x1, y1), (width, height) = bounds, size
        x0, y0, x1, y1 = x0 * width, y0 * height, x1 * width, y1 * height
        if points:
            half = self.settings.point_side * min(size) / 2
            x0, y0, x1, y1 = x0 - half, y0 - half, x1 + half, y1 + half
        beside, above = self.settings.margin * (x1 - x0), self.settings.margin * (y1 - y0)
        return (x0 - beside + _EDGE, y0 - above + _EDGE, x1 + beside - _EDGE, y1 + above - _EDGE)
