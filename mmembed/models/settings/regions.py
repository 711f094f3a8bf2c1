"""How a model is told which places of a picture are meant. No torch here."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from mmembed.errors import InputError
from mmembed.settings import Part

if TYPE_CHECKING:
    from mmembed.models.region_encoders import RegionEncoder


@dataclass(frozen=True)
class RegionEncoderSettings(Part):
    """How a model is told which places of a picture are meant."""

    abstract: ClassVar[bool] = True

    def build(self) -> "RegionEncoder":
        """Make the encoder."""
        raise NotImplementedError


@dataclass(frozen=True)
class TextRegions(RegionEncoderSettings):
    """Boxes and points in words right behind their picture, e.g. ``(box 120 40 610 380)``; a mask is refused."""

    scale: int = 1000
    """How many steps each side of the picture is counted in: a coordinate is a whole number from 0 to this."""

    def __post_init__(self) -> None:
        if self.scale < 1:
            raise InputError("regions.scale", expected="at least 1", got=self.scale, remedy="1000 is usual")

    def build(self) -> "RegionEncoder":
        """Make the encoder."""
        from mmembed.models.region_encoders import TextRegionEncoder

        return TextRegionEncoder(self.scale)
