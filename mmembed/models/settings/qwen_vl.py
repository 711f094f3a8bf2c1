"""Settings of the Qwen-VL family. No torch here."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from mmembed.errors import InputError
from mmembed.models.settings.backbones import VisionLanguageSettings

if TYPE_CHECKING:
    from mmembed.models.backbone import Backbone


@dataclass(frozen=True)
class PixelBudget:
    """How many pixels a resized picture has."""

    min_pixels: int
    """At least so many."""
    max_pixels: int
    """At most so many."""

    def __post_init__(self) -> None:
        if self.min_pixels > self.max_pixels:
            raise InputError(
                "max_pixels", expected=f"at least min_pixels {self.min_pixels}", got=self.max_pixels, remedy="raise it"
            )


@dataclass(frozen=True)
class QwenVL(VisionLanguageSettings):
    """Qwen2-VL, Qwen2.5-VL or Qwen3-VL; which one is read from the checkpoint."""

    positions: Literal["sequential", "mrope"] = "mrope"
    """Token positions: one counter (VLM2Vec's released checkpoints), or the model's own three (time, height, width)."""
    min_pixels: int = 3136
    """Pictures and frames are scaled up to at least this many pixels."""
    max_pixels: int = 1003520
    """Pictures and frames are scaled down to at most this many pixels."""
    min_side: int = 28
    """A picture with a shorter side first becomes a 56 x 56 square (published rule of VLM2Vec); 0 turns it off."""
    first_resize: PixelBudget | None = None
    """Scale a picture into this budget before the one above, as code does that fetches a picture with ``qwen-vl-utils``
    and then runs the processor (GME, LamRA); None resizes once."""

    def __post_init__(self) -> None:
        super().__post_init__()
        PixelBudget(self.min_pixels, self.max_pixels)

    def build(self, **live: Any) -> "Backbone":
        """See :meth:`BackboneSettings.build`."""
        from mmembed.models.backbones.qwen_vl.backbone import QwenVLBackbone

        return QwenVLBackbone.open(self, **live)
