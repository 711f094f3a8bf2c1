"""Regions in words. No torch here."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mmembed.errors import InputError
from mmembed.models.settings.regions.base import RegionEncoderSettings

if TYPE_CHECKING:
    from mmembed.models.region_encoders.preparer import RegionPreparer


@dataclass(frozen=True)
class TextRegions(RegionEncoderSettings):
    """Boxes and points in words right behind their picture, e.g. ``(box 120 40 610 380)``; a mask is refused."""

    scale: int = 1000
    """How many steps each side of the picture is counted in: a coordinate is a whole number from 0 to this."""

    def __post_init__(self) -> None:
        if self.scale < 1:
            raise InputError("regions.scale", expected="at least 1", got=self.scale, remedy="1000 is usual")

    def preparer(self) -> "RegionPreparer":
        """See :meth:`RegionEncoderSettings.preparer`."""
        from mmembed.models.region_encoders.text import TextRegionPreparer

        return TextRegionPreparer(self.scale)
