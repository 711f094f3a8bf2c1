"""The table of parts: every backbone, prompt style, pooler and region encoder that a recipe may name.

Settings of everything between an Item and its embedding, without torch: recipes and ``embedder.yaml`` are typed by
these, and ``build`` makes what they name.
"""

from typing import Literal

from mmembed.models.settings.adapters import Lora
from mmembed.models.settings.backbones import (
    BackboneSettings,
    DType,
    LanguageSettings,
    Scratch,
    VisionLanguageSettings,
)
from mmembed.models.settings.composers import ComposerSettings, Product, Slerp, Sum
from mmembed.models.settings.dual_encoder import DualEncoder, TimmTower
from mmembed.models.settings.embedder import EmbedderSettings
from mmembed.models.settings.llava import Llava
from mmembed.models.settings.mllama import Mllama
from mmembed.models.settings.phi3_v import Phi3V
from mmembed.models.settings.poolers import (
    BeforeToken,
    KindName,
    LastToken,
    LatentAttention,
    MeanToken,
    MultiLayer,
    PoolerSettings,
    TokenId,
)
from mmembed.models.settings.prompts import ChatPrompt, LaidOutPrompt, Layouts, Phrases, PromptStyle, RawPrompt, Request
from mmembed.models.settings.pseudo_words import Phi, Pic2Word, PseudoWordSettings, TextualInversion
from mmembed.models.settings.qwen_vl import Clips, PixelBudget, QwenVL
from mmembed.models.settings.regions import (
    Crop,
    MaskChannel,
    MaskPool,
    Overlay,
    RegionEncoderSettings,
    RoiReplay,
    Sam2Regions,
    Sam2Scratch,
    TextRegions,
)
from mmembed.models.settings.special_tokens import SpecialTokens
from mmembed.models.settings.speed import Speed
from mmembed.models.settings.text import TextModel

Side = Literal["query", "target"]

__all__ = [
    "BackboneSettings",
    "BeforeToken",
    "ChatPrompt",
    "Clips",
    "ComposerSettings",
    "Crop",
    "DType",
    "DualEncoder",
    "EmbedderSettings",
    "KindName",
    "LaidOutPrompt",
    "LanguageSettings",
    "LastToken",
    "LatentAttention",
    "Layouts",
    "Llava",
    "Lora",
    "MaskChannel",
    "MaskPool",
    "MeanToken",
    "Mllama",
    "MultiLayer",
    "Overlay",
    "Phi",
    "Phi3V",
    "Phrases",
    "Pic2Word",
    "PixelBudget",
    "PoolerSettings",
    "Product",
    "PromptStyle",
    "PseudoWordSettings",
    "QwenVL",
    "RawPrompt",
    "RegionEncoderSettings",
    "Request",
    "RoiReplay",
    "Sam2Regions",
    "Sam2Scratch",
    "Scratch",
    "Side",
    "Slerp",
    "SpecialTokens",
    "Speed",
    "Sum",
    "TextModel",
    "TextRegions",
    "TextualInversion",
    "TimmTower",
    "TokenId",
    "VisionLanguageSettings",
]
