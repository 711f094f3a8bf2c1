"""Settings of Phi-3.5-vision. No torch here."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mmembed.errors import InputError
from mmembed.models.settings.backbones import VisionLanguageSettings

if TYPE_CHECKING:
    from mmembed.models.backbone import Backbone


@dataclass(frozen=True)
class Phi3V(VisionLanguageSettings):
    """Phi-3-vision or Phi-3.5-vision, whose chat template takes a message as one string (``content: text``)."""

    num_crops: int = 16
    """Most tiles of 336 pixels that a picture is cut into, beside one view of the whole; a tile is about 150 tokens. 16
    is what VLM2Vec's code uses, 4 what Phi-3.5-vision's own ``preprocessor_config.json`` says."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_crops < 1:
            raise InputError("num_crops", expected="at least 1", got=self.num_crops, remedy="16 is usual")

    def build(self, **live: Any) -> "Backbone":
        """See :meth:`BackboneSettings.build`."""
        from mmembed.models.backbones.phi3_v.backbone import Phi3VBackbone

        return Phi3VBackbone.open(self, **live)
