"""Settings of the LLaVA family. No torch here."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mmembed.models.settings.backbones import VisionLanguageSettings

if TYPE_CHECKING:
    from mmembed.models.backbone import Backbone


@dataclass(frozen=True)
class Llava(VisionLanguageSettings):
    """LLaVA-NeXT, LLaVA-OneVision or LLaVA; which one, and around which language model, is read from the checkpoint.

    Checkpoints in the layout of the LLaVA-NeXT code (``llava_qwen``) are LLaVA-OneVision.
    """

    def build(self, **live: Any) -> "Backbone":
        """See :meth:`BackboneSettings.build`."""
        from mmembed.models.backbones.llava.backbone import LlavaBackbone

        return LlavaBackbone.open(self, **live)
