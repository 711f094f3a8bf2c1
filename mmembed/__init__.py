"""Multimodal embeddings: every published recipe as one YAML, exact, fast and readable.

The names below load on first use, so that importing the package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmembed.items import Image, Item, Negative, Page, Pair, Region, Video
    from mmembed.models.embedder import Embedder

__version__ = "0.1.0"

_HOMES = dict.fromkeys(("Image", "Item", "Negative", "Page", "Pair", "Region", "Video"), "mmembed.items")
_HOMES["Embedder"] = "mmembed.models.embedder"

__all__ = ["Embedder", "Image", "Item", "Negative", "Page", "Pair", "Region", "Video", "__version__"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'mmembed' has no attribute '{name}'")
