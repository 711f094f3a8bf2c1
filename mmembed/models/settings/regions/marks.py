"""Regions in the pixels that the backbone sees. No torch here."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from mmembed.errors import InputError
from mmembed.models.settings.regions.base import RegionEncoderSettings, check_share

if TYPE_CHECKING:
    from mmembed.models.backbone import Backbone
    from mmembed.models.region_encoders.encoder import RegionEncoder
    from mmembed.models.region_encoders.preparer import RegionPreparer


@dataclass(frozen=True)
class Overlay(RegionEncoderSettings):
    """Regions drawn into their picture (ViP-LLaVA, arXiv:2312.00784; red circle, arXiv:2304.06712).

    A box is outlined, a mask is tinted, a point is a disc, hollow where it says what is not meant. Several regions of a
    picture have colours of their own. The tower runs once for each picture and its regions.
    """

    shape: Literal["rectangle", "ellipse"] = "rectangle"
    """What a box is outlined by."""
    line: float = 0.01
    """Width of lines as a share of the picture's longer side, at least a pixel."""
    alpha: float = 1.0
    """How much of the picture a line or disc covers; a mask is tinted by half of it."""

    def __post_init__(self) -> None:
        check_share("line", self.line, "0.01 is usual")
        check_share("alpha", self.alpha, "1 is usual")

    def preparer(self) -> "RegionPreparer":
        """See :meth:`RegionEncoderSettings.preparer`."""
        from mmembed.models.region_encoders.overlay import OverlayPreparer

        return OverlayPreparer(self)


@dataclass(frozen=True)
class Crop(RegionEncoderSettings):
    """The picture cut to its one region, as VIRTUE's baselines are (arXiv:2510.00523, table of SCaR).

    Of a mask it is cut to the box around it. Several regions of a picture, and points outside, are refused.
    """

    margin: float = 0.0
    """What is kept around the region on each side, as a share of the region's sides."""
    point_side: float = 0.3
    """Side of the square around points, as a share of the picture's shorter side."""

    def __post_init__(self) -> None:
        if self.margin < 0:
            raise InputError("regions.margin", expected="at least 0", got=self.margin, remedy="0 cuts to the region")
        check_share("point_side", self.point_side, "0.3 is usual")

    def preparer(self) -> "RegionPreparer":
        """See :meth:`RegionEncoderSettings.preparer`."""
        from mmembed.models.region_encoders.crop import CropPreparer

        return CropPreparer(self)


@dataclass(frozen=True)
class MaskChannel(RegionEncoderSettings):
    """A second patch embedding for the mask of all regions, begun at zero (Alpha-CLIP, arXiv:2312.03818; DAM).

    Nothing is added to the sequence; every state of the tower knows what is meant, but not which region is which. The
    tower runs once for each picture and its regions, and should train, too; the embedding learns behind a frozen one.
    """

    point_side: float = 0.1
    """Side of the square that a point marks, as a share of the picture's shorter side."""

    def __post_init__(self) -> None:
        check_share("point_side", self.point_side, "0.1 is usual")

    def preparer(self) -> "RegionPreparer":
        """See :meth:`RegionEncoderSettings.preparer`."""
        from mmembed.models.region_encoders.mask_channel import MaskChannelPreparer

        return MaskChannelPreparer(self)

    def build(self, backbone: "Backbone") -> "RegionEncoder":
        """See :meth:`RegionEncoderSettings.build`."""
        from mmembed.models.region_encoders.mask_channel import MaskChannelEncoder

        return MaskChannelEncoder(backbone)
