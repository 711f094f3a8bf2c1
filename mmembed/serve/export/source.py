"""What an export was made of, as its record holds it: a card can be written without naming the embedder.

The record names places on the machine that exported, so what is given to others leaves this part of it out.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmembed.models.embedder import Embedder
from mmembed.models.settings import EmbedderSettings
from mmembed.settings import dump_settings, read_settings

OF = "of"
"""Where the record holds it."""
PLACES = ("path", "adapter", "checkpoint", "sam", "pooler_weights", "regions_weights")
"""Settings that name a directory, a file or a Hub id."""


def source_of(model: Embedder) -> dict[str, Any] | None:
    """The settings of what is exported, directories and files by their whole paths; None where nothing was saved."""
    if getattr(model.settings.backbone, "scratch", None) is not None:
        return None
    return dict(_whole(dump_settings(model.settings)))


def open_source(said: Mapping[str, Any]) -> Embedder:
    """The embedder of these settings.

    Raises:
        InputError: it does not lie there any more, or cannot be opened.
    """
    return Embedder(read_settings(EmbedderSettings, said, where=OF)).eval()


def _whole(value: Any, name: str = "") -> Any:
    if isinstance(value, Mapping):
        return {key: _whole(inner, key) for key, inner in value.items()}
    return str(Path(value).resolve()) if name in PLACES and isinstance(value, str) and Path(value).exists() else value
