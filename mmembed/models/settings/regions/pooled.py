"""Regions as tokens made of the backbone's own features. No torch here."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

from mmembed.errors import InputError
from mmembed.models.settings.regions.base import RegionEncoderSettings, check_share, from_root

if TYPE_CHECKING:
    from mmembed.models.backbone import Backbone
    from mmembed.models.region_encoders.encoder import RegionEncoder
    from mmembed.models.region_encoders.preparer import RegionPreparer


@dataclass(frozen=True)
class RoiReplay(RegionEncoderSettings):
    """The picture's own features under a region once more (RoIAlign, arXiv:1703.06870), right behind the picture.

    Each token is a cell of the region, with where it lies and that it is meant; as in GAR (arXiv:2510.18876). A box or
    mask is ``size * size`` tokens, each point is one; a picture without a region has none.
    """

    size: int = 4
    """Cells to each side of a box or mask."""
    point_side: float = 0.1
    """Side of the square around a point that its token is made of, as a share of the picture's shorter side."""

    def __post_init__(self) -> None:
        if self.size < 1:
            raise InputError("regions.size", expected="at least 1", got=self.size, remedy="4 is usual")
        check_share("point_side", self.point_side, "0.1 is usual")

    def preparer(self) -> "RegionPreparer":
        """See :meth:`RegionEncoderSettings.preparer`."""
        from mmembed.models.region_encoders.roi_replay import RoiReplayPreparer

        return RoiReplayPreparer(self)

    def build(self, backbone: "Backbone") -> "RegionEncoder":
        """See :meth:`RegionEncoderSettings.build`."""
        from mmembed.models.region_encoders.roi_replay import RoiReplayEncoder

        return RoiReplayEncoder(self, backbone)


@dataclass(frozen=True)
class MaskPool(RegionEncoderSettings):
    """Features pooled under a region's mask, from several layers, and its shape: two tokens (Osprey, arXiv:2312.10032).

    A box is a mask of its own; points are the squares around those inside without the squares around those outside, or
    what SAM 2 (arXiv:2408.00714) finds there.
    """

    layers: tuple[int, ...] = ()
    """Layers of the tower that are pooled beside what it hands on; 0 are its embeddings, -1 is the last."""
    shape_side: int = 16
    """Side of the small mask that the shape token is made of: the region's within the box around it."""
    point_side: float = 0.1
    """Side of the square around a point, as a share of the picture's shorter side; of no matter with ``sam``."""
    sam: str | None = None
    """Directory or Hub id of a SAM 2 checkpoint that makes masks of points and boxes; None makes squares. Where it
    finds nothing, the box or squares count."""
    sam_revision: str | None = None
    """Commit of the Hub repository of ``sam``; None is its main branch."""

    def __post_init__(self) -> None:
        if self.shape_side < 1:
            raise InputError("regions.shape_side", expected="at least 1", got=self.shape_side, remedy="16 is usual")
        check_share("point_side", self.point_side, "0.1 is usual")

    def saved(self) -> Self:
        """See :meth:`RegionEncoderSettings.saved`."""
        return replace(self, sam=from_root(self.sam))

    def preparer(self) -> "RegionPreparer":
        """See :meth:`RegionEncoderSettings.preparer`."""
        from mmembed.models.region_encoders.mask_pool import MaskPoolPreparer

        return MaskPoolPreparer(self)

    def build(self, backbone: "Backbone") -> "RegionEncoder":
        """See :meth:`RegionEncoderSettings.build`."""
        from mmembed.models.region_encoders.mask_pool import MaskPoolEncoder

        return MaskPoolEncoder(self, backbone)
