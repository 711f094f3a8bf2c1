"""Everything between an Item and its embedding. No torch here."""

from dataclasses import dataclass, field

from mmembed.models.settings.adapters import Lora
from mmembed.models.settings.backbones import BackboneSettings
from mmembed.models.settings.poolers import PoolerSettings
from mmembed.models.settings.prompts import PromptStyle, RawPrompt
from mmembed.models.settings.regions import RegionEncoderSettings
from mmembed.models.settings.speed import Speed


@dataclass(frozen=True)
class EmbedderSettings:
    """Everything needed to embed as this model does; saved beside the weights as ``embedder.yaml``."""

    backbone: BackboneSettings
    """What turns items into hidden states."""
    prompt: PromptStyle = field(default_factory=RawPrompt)
    """How an Item is written."""
    pooler: PoolerSettings | None = None
    """How hidden states become one vector; None is what the backbone is used with: the last token of a decoder, the
    mean of an encoder, the sum of a dual encoder's two vectors."""
    pooler_weights: str | None = None
    """File of the pooler's trained weights, where it has any; None starts them afresh."""
    normalize: bool = True
    """Scale embeddings to unit length, in float32."""
    lora: Lora | None = None
    """Train an adapter instead of all weights."""
    regions: RegionEncoderSettings | None = None
    """How regions of pictures are told; None refuses items that have any. RoiReplay is usual in new training."""
    regions_weights: str | None = None
    """File of the region encoder's trained weights, where it has any; None starts them afresh."""
    speed: Speed = field(default_factory=Speed)
    """What is computed faster."""
