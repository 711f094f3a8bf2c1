"""Settings of the Qwen-VL family. No torch here."""

from dataclasses import dataclass, field
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
    factor: int | None = None
    """Each side is a multiple of so many pixels; None is the side of a token."""

    def __post_init__(self) -> None:
        if self.min_pixels > self.max_pixels:
            raise InputError(
                "max_pixels", expected=f"at least min_pixels {self.min_pixels}", got=self.max_pixels, remedy="raise it"
            )


@dataclass(frozen=True)
class Clips:
    """How a clip is shown where otherwise than pictures, as ``qwen-vl-utils`` does before the processor."""

    min_pixels: int | None = None
    """Each frame is scaled up to at least this many pixels; None is the pictures' bound."""
    max_pixels: int | None = None
    """Each frame is scaled down to at most this many pixels; None is the pictures' bound."""
    total_pixels: int | None = None
    """All frames that are seen together have at most so many (two frames share their tokens, so twice as many are
    allowed), but each may have 1.05 times ``min_pixels``; None bounds each frame alone."""
    resize: Literal["pil", "torchvision", "torchvision_float"] | None = None
    """Resize of the frames, at last torchvision's by way of floats, which its older functions take; None is that of
    pictures."""
    stills_factor: int | None = None
    """Frames that are given as pictures are first resized to multiples of so many pixels, by Pillow: 64 repeats
    qwen-vl-utils 0.0.14, which takes a token's side for a patch's there; None resizes once."""
    outer_tokens: bool = True
    """Qwen3-VL, whose frames have a ``<|vision_start|>`` and end each: whether the template's own pair stays around
    them all, as in transformers from 5.10 on, or gives way to them, as before."""
    as_pictures: bool = False
    """Show each frame as a picture of its own, within the pictures' bounds (Ops-MM)."""


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
    thin: Literal["square", "strip"] = "square"
    """What a picture counts as that is thinner than a token or over 200 times as long as wide: a ``square`` of its
    longer side (VLM2Vec), or a ``strip`` at least one token wide and at most 200 times as long (GME, Ops-MM)."""
    clips: Clips = field(default_factory=Clips)
    """How clips are shown where otherwise than pictures."""
    deepstack: bool = True
    """Add features of the tower's inner layers to the first layers of the language model (Qwen3-VL); false leaves them
    out, as the released code of U-MARVEL does."""

    def __post_init__(self) -> None:
        super().__post_init__()
        PixelBudget(self.min_pixels, self.max_pixels)
        PixelBudget(*self.clip_pixels)

    @property
    def clip_pixels(self) -> tuple[int, int]:
        """At least and at most so many pixels has a frame of a clip."""
        least, most = self.clips.min_pixels, self.clips.max_pixels
        return self.min_pixels if least is None else least, self.max_pixels if most is None else most

    def build(self, **live: Any) -> "Backbone":
        """See :meth:`BackboneSettings.build`."""
        from mmembed.models.backbones.qwen_vl.backbone import QwenVLBackbone

        return QwenVLBackbone.open(self, **live)
