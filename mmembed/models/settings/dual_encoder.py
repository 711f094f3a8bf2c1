"""Settings of dual encoders: an image tower and a text tower that meet in one space. No torch here."""

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Self

from mmembed.errors import InputError
from mmembed.media.settings import MediaSettings
from mmembed.models.settings.backbones import BackboneSettings, DType, Scratch

if TYPE_CHECKING:
    from mmembed.models.backbone import Backbone


@dataclass(frozen=True)
class TimmTower:
    """A timm model and a linear projection, fresh, to the width of the text vectors (LiT, arXiv:2111.07991)."""

    model: str
    """As timm names it, e.g. ``vit_base_patch16_dinov3``."""
    pretrained: bool = True
    """Start from timm's own weights; false starts at random."""
    path: str | None = None
    """A safetensors file of the whole timm model, instead of the one that timm would download."""
    seed: int = 0
    """Seed of the projection, and of the tower where ``pretrained`` is false."""

    def __post_init__(self) -> None:
        if self.path is not None and not self.path.endswith(".safetensors"):
            raise InputError(
                "image_tower.path", expected="a safetensors file", got=self.path, remedy="pickled weights are refused"
            )


@dataclass(frozen=True)
class DualEncoder(BackboneSettings):
    """CLIP, SigLIP, CoCa or any other image and text tower that open_clip knows, timm's towers included.

    An item of text is its text vector, one of media its image vector, and one of both is composed of the two.
    """

    path: str | None = None
    """A directory or Hub id with ``open_clip_config.json``, or with a CLIP or SigLIP in transformers' layout; or an
    architecture and the tag of its weights as open_clip lists them (``ViT-B-32-quickgelu:openai``); exactly one of path
    and scratch."""
    revision: str | None = None
    """Commit of the Hub repository; None is its main branch."""
    scratch: Scratch | None = None
    """Make a small random one: ``clip``, ``siglip``, ``coca`` or ``timm``. All but ``siglip`` read text with CLIP's own
    vocabulary, which is not trained."""
    adapter: str | None = None
    """Directory or Hub id of a LoRA adapter to load onto the checkpoint."""
    adapter_revision: str | None = None
    """Commit of the adapter's Hub repository; None is its main branch."""
    dtype: DType = "float32"
    """Type of the weights."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass to save memory."""
    image_tower: TimmTower | None = None
    """Take this instead of the checkpoint's image tower."""
    transform: Literal["standard", "targetpad", "transformers"] = "standard"
    """The checkpoint's own resize and crop; ``targetpad`` first pads long pictures with black to an aspect of 1.25
    (composed image retrieval: arXiv:2303.15247). ``transformers`` crops as transformers does, where an odd number of
    pixels is cut off: the smaller half of them left and above, where open_clip takes the even one."""
    frames: Literal["normalised_mean", "mean"] = "normalised_mean"
    """A clip is the mean of its frames' vectors, and several pictures the mean of theirs: of those scaled to unit
    length, scaled by their average length (CLIP4Clip, arXiv:2104.08860), or of those as they are."""
    media: MediaSettings = field(default_factory=MediaSettings)
    """How files become pictures and frames."""

    def saved(self) -> Self:
        """See :meth:`BackboneSettings.saved`; the config that is saved has the new image tower."""
        return replace(super().saved(), image_tower=None)

    def build(self, **live: Any) -> "Backbone":
        """See :meth:`BackboneSettings.build`."""
        from mmembed.models.backbones.dual_encoder.backbone import DualEncoderBackbone

        return DualEncoderBackbone.open(self, **live)
