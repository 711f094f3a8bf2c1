"""The picture that a person marks: large enough to click on, with its marks drawn in."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import PIL.Image
from PIL.Image import Image as Picture

from mmembed.evaluation.thumbnails import draw_region
from mmembed.items import Region

SIDE_PX = 560
"""Longest side on the page."""
POINT_ZOOM = 2
"""How much larger a point is drawn than on a thumbnail, where nobody has to find it again."""


@dataclass(frozen=True)
class Canvas:
    """A picture of ``size`` pixels as it is shown, a tiny one with each pixel as a square of several."""

    size: tuple[int, int]

    @property
    def shown_size(self) -> tuple[int, int]:
        """Its size on the page."""
        width, height = self.size
        return max(1, round(width * self._scale)), max(1, round(height * self._scale))

    @property
    def _scale(self) -> float:
        longest = max(self.size)
        return SIDE_PX // longest if longest < SIDE_PX else SIDE_PX / longest

    def draw(self, picture: Picture, regions: Sequence[Region]) -> Picture:
        """The picture as it is shown, with ``regions`` in its own pixels drawn in."""
        resampling = PIL.Image.Resampling
        how = resampling.NEAREST if self._scale >= 1 else resampling.LANCZOS
        shown = picture.convert("RGB").resize(self.shown_size, how)
        for region in regions:
            if region.points:
                self._draw_points(shown, region)
            else:
                draw_region(shown, region, self._scale)
        return shown

    def _draw_points(self, shown: Picture, region: Region) -> None:
        width, height = shown.size
        small = PIL.Image.new("RGBA", (-(-width // POINT_ZOOM), -(-height // POINT_ZOOM)), (0, 0, 0, 0))
        draw_region(small, region, self._scale / POINT_ZOOM)
        dots = small.resize((small.width * POINT_ZOOM, small.height * POINT_ZOOM), PIL.Image.Resampling.BICUBIC)
        shown.paste(dots, (0, 0), dots)

    def to_picture(self, x: float, y: float) -> tuple[float, float]:
        """The place in the picture under a pixel of the page: its middle, which never leaves the picture."""
        (width, height), (across, down) = self.size, self.shown_size
        return _inside((x + 0.5) * width / across, width), _inside((y + 0.5) * height / down, height)

    def mask_of(self, layers: Sequence[Picture]) -> np.ndarray:
        """What was painted on layers over it, as a mask of the picture, bool ``[H, W]``: where any covers half."""
        mask = np.zeros(self.size[::-1], dtype=bool)
        for layer in layers:
            alpha = layer.convert("RGBA").getchannel("A").resize(self.size, PIL.Image.Resampling.BOX)
            mask |= np.asarray(alpha) >= 128
        return mask


def _inside(value: float, length: int) -> float:
    return round(min(max(value, 0.0), float(length)), 2)
