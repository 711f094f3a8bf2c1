"""How vLLM reads a folder of sentence-transformers: its rule to the letter, since it says nothing of a slip."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmembed.errors import InputError
from mmembed.models.embedder import Embedder
from mmembed.models.settings import MeanToken

_POOLING, _NORMALIZE = "sentence_transformers.models.Pooling", "sentence_transformers.models.Normalize"
# of these it takes the vector of a whole prompt
_OF_SEQUENCES = ("CLS", "LAST", "MEAN")


@dataclass(frozen=True)
class Pooled:
    """What vLLM takes from a folder.

    Args:
        pooling: its name for the pooling; None where it finds none.
        normalize: whether vectors are scaled to unit length.
    """

    pooling: str | None
    normalize: bool


def read_as_vllm(directory: Path) -> Pooled:
    """Read pooling and normalisation as vLLM does (``get_pooling_config``, up to 0.23).

    It goes by literal names of types, and by the keys of the pooling's config whose value is true.
    """
    modules = _json(directory / "modules.json")
    kinds = {module["type"]: module["path"] for module in reversed(modules)}
    pooling = None
    if _POOLING in kinds:
        for key, value in _json(directory / kinds[_POOLING] / "config.json").items():
            named = _named(key)
            if value is True and named in _OF_SEQUENCES:
                pooling = named
    return Pooled(pooling, _NORMALIZE in kinds)


def check_pooling(model: Embedder, directory: Path) -> None:
    """See that vLLM would pool as the model does.

    Raises:
        InputError: it would not.
    """
    wanted = Pooled("MEAN" if isinstance(model.settings.pooler, MeanToken) else "LAST", model.settings.normalize)
    read = read_as_vllm(directory)
    if read != wanted:
        raise InputError(directory, expected=f"{wanted} as vLLM reads it", got=read, remedy="report this")


def _named(key: str) -> str:
    """The name vLLM gives a key: without its beginning, up to the next underscore, the last token shortened."""
    name = key.replace("pooling_mode_", "")
    if "_" in name:
        name = name.split("_", 1)[0]
    return ("last" if "lasttoken" in name else name).upper()


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
