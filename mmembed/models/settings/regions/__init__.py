"""How a model is told which places of a picture are meant. No torch here."""

from mmembed.models.settings.regions.base import RegionEncoderSettings
from mmembed.models.settings.regions.marks import Crop, MaskChannel, Overlay
from mmembed.models.settings.regions.pooled import MaskPool, RoiReplay
from mmembed.models.settings.regions.sam2 import Sam2Regions, Sam2Scratch
from mmembed.models.settings.regions.text import TextRegions

__all__ = [
    "Crop",
    "MaskChannel",
    "MaskPool",
    "Overlay",
    "RegionEncoderSettings",
    "RoiReplay",
    "Sam2Regions",
    "Sam2Scratch",
    "TextRegions",
]
