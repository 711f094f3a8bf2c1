"""VIRTUE's regions: tokens of a frozen SAM 2. No torch here."""

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Self

from mmembed.errors import InputError
from mmembed.models.settings.backbones import DType
from mmembed.models.settings.regions.base import RegionEncoderSettings, from_root

if TYPE_CHECKING:
    from mmembed.models.backbone import Backbone
    from mmembed.models.region_encoders.encoder import RegionEncoder
    from mmembed.models.region_encoders.preparer import RegionPreparer


@dataclass(frozen=True)
class Sam2Scratch:
    """A small randomly initialised SAM 2, for learning from nothing and for tests."""

    image_size: int = 256
    """Side of the square that it sees, in pixels."""
    vision: dict[str, Any] = field(default_factory=dict)
    """Fields of its image encoder's config, as transformers' Sam2HieraDetConfig has them, that differ from the small
    default."""
    seed: int = 0
    """Seed of the random weights."""


@dataclass(frozen=True)
class Sam2Regions(RegionEncoderSettings):
    """What SAM 2's mask decoder makes of a picture under a prompt, as 256 tokens (VIRTUE, arXiv:2510.00523 sec. 3).

    A picture without a region is prompted by a grid of three by three points. SAM 2 is frozen and sees each picture
    once; only the connector trains. The tokens stand right behind their picture.
    """

    checkpoint: str | None = None
    """Directory or Hub id of a SAM 2 checkpoint in transformers' layout, or a ``.pt`` or ``.safetensors`` file in the
    original one; exactly one of checkpoint and scratch."""
    revision: str | None = None
    """Commit of the Hub repository; None is its main branch."""
    scratch: Sam2Scratch | None = None
    """Make a small random one instead of loading one."""
    grid: int = 3
    """Points to each side of the grid that a picture without a region is prompted by."""
    cache_mb: int = 512
    """Encoded pictures kept in memory, in MiB, so that another prompt in the same one encodes nothing; of the larger
    models at float32 one takes 4, or 16 where masks are asked for."""
    dtype: DType = "float32"
    """Type of SAM 2's weights; those that encode prompts, and the connector's, are float32."""
    legacy_pixels: bool = False
    """Of the released VIRTUE: SAM sees the pixels that the backbone's processor resized and normalised, normalised
    again."""
    legacy_boxes: bool = False
    """Of the released VIRTUE: boxes count in pixels of the picture, but SAM takes them for its own 1024."""
    legacy_positions: Literal["first", "later", "single"] | None = None
    """Of the released VIRTUE: the tokens lead their row, all at position 0, and the others count from 0 in the first
    call of a process (``first``) and from the 256th place of the padded row in all others (``later``). Both depend on
    the rows beside: a row of text among pictures is read from fillers behind it, and padding on the right from too
    early a token. ``single`` is ``later`` as it embeds each row by itself."""
    legacy_prompts: bool = False
    """Of the released VIRTUE: one prompt a picture, a point or a box; a mask or a point outside is refused."""

    def __post_init__(self) -> None:
        if self.grid < 1:
            raise InputError("regions.grid", expected="at least 1", got=self.grid, remedy="3 is usual")
        if self.cache_mb < 0:
            raise InputError("regions.cache_mb", expected="at least 0", got=self.cache_mb, remedy="0 keeps none")

    def saved(self) -> Self:
        """See :meth:`RegionEncoderSettings.saved`."""
        return replace(self, checkpoint=from_root(self.checkpoint))

    def preparer(self) -> "RegionPreparer":
        """See :meth:`RegionEncoderSettings.preparer`."""
        if (self.checkpoint is None) == (self.scratch is None):
            raise InputError(
                "regions", expected="exactly one of checkpoint and scratch",
                got="neither" if self.scratch is None else "both",
                remedy="facebook/sam2.1-hiera-base-plus is usual",
            )  # fmt: skip
        from mmembed.models.region_encoders.sam2_preparer import LeadingSam2Preparer, Sam2Preparer

        return Sam2Preparer(self) if self.legacy_positions is None else LeadingSam2Preparer(self)

    def build(self, backbone: "Backbone") -> "RegionEncoder":
        """See :meth:`RegionEncoderSettings.build`."""
        from mmembed.models.region_encoders.sam2 import Sam2Encoder

        return Sam2Encoder(self, backbone)
