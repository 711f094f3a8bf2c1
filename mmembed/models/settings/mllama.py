"""Settings of the Llama-3.2-Vision family. No torch here."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mmembed.errors import InputError
from mmembed.models.settings.backbones import VisionLanguageSettings

if TYPE_CHECKING:
    from mmembed.models.backbone import Backbone


@dataclass(frozen=True)
class Mllama(VisionLanguageSettings):
    """Llama-3.2-Vision (arXiv:2407.21783, section 7): layers of the language model attend to the pictures."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.attention == "flash_attention_2":
            raise InputError(
                "backbone.attention", expected="a kernel that takes the masks of Llama-3.2-Vision: sdpa or eager",
                got="flash_attention_2", remedy="use sdpa",
            )  # fmt: skip

    def build(self, **live: Any) -> "Backbone":
        """See :meth:`BackboneSettings.build`."""
        from mmembed.models.backbones.mllama.backbone import MllamaBackbone

        return MllamaBackbone.open(self, **live)
