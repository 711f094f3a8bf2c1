"""The weights that open_clip lists by architecture and tag, and the activation they were trained with.

Weights trained with QuickGELU open without complaint in an architecture with GELU, and embed badly: open_clip only
warns. Here each is opened in its own, before anything is downloaded.
"""

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import open_clip

from mmembed.errors import InputError, nearest

QUICK = "-quickgelu"


@dataclass(frozen=True)
class Released:
    """Where weights are, and what they are of.

    Args:
        model: their architecture.
        config: its config.
        preprocessing: of pictures.
        repository: Hub id.
        file: safetensors in it.
    """

    model: str
    config: dict[str, Any]
    preprocessing: dict[str, Any]
    repository: str
    file: str


def released(name: str) -> Released:
    """What ``ARCHITECTURE:TAG`` names.

    Raises:
        InputError: an unknown architecture or tag, with the nearest; or weights trained with another activation than
            the architecture has, with the architecture that has it.
    """
    model, _, tag = name.partition(":")
    config = open_clip.get_model_config(model)
    if config is None:
        raise InputError(
            "backbone.path", expected="a directory, a Hub id, or an architecture and tag that open_clip lists",
            got=f"'{model}'", remedy=nearest(model, open_clip.list_models()),
        )  # fmt: skip
    check_activation(model, tag, config)
    weights = open_clip.get_pretrained_cfg(model, tag)
    if not weights:
        tags = open_clip.list_pretrained_tags_by_model(model)
        raise InputError(
            "backbone.path", expected=f"weights that open_clip lists for {model}", got=f"'{tag}'",
            remedy=nearest(tag, tags) if tags else "none are; name a directory or Hub id",
        )  # fmt: skip
    repository, file = _safetensors(name, weights)
    return Released(model, config, dict(weights), repository, file)


def check_activation(model: str, tag: str, config: dict[str, Any]) -> None:
    """Refuse weights that were trained with another activation than the architecture's.

    Raises:
        InputError: with the architecture that has theirs, where open_clip has one.
    """
    quick = bool(config.get("quick_gelu"))
    other = model.removesuffix(QUICK) if quick else model + QUICK
    weights = open_clip.get_pretrained_cfg(model, tag) or open_clip.get_pretrained_cfg(other, tag)
    if not weights or bool(weights.get("quick_gelu")) == quick:
        return
    trained, has = ("GELU", "QuickGELU") if quick else ("QuickGELU", "GELU")
    remedy = f"name {other}:{tag}"
    if other == model or other not in open_clip.list_models():
        # a repository says itself what its weights are of
        remedy = f"open them by Hub id: {_repository(weights)[0]}"
    raise InputError(
        "backbone.path", expected=f"an architecture with {trained}, which these weights were trained with",
        got=f"{model} with {has}", remedy=remedy,
    )  # fmt: skip


def _safetensors(name: str, weights: dict[str, Any]) -> tuple[str, str]:
    repository, file = _repository(weights)
    stem, suffix = PurePosixPath(file).stem, PurePosixPath(file).suffix
    if not repository or suffix not in ("", ".bin", ".pth", ".safetensors"):
        raise InputError(
            "backbone.path", expected="weights as safetensors on the Hub", got=f"{name}: {file or 'a pickle'}",
            remedy="open them with open_clip and save them as safetensors",
        )  # fmt: skip
    return repository, f"{stem or 'open_clip_model'}.safetensors"


def _repository(weights: dict[str, Any]) -> tuple[str, str]:
    """Hub id and file; open_clip writes ``owner/name/`` or ``owner/name/file``."""
    repository, _, file = weights.get("hf_hub", "").rpartition("/")
    return repository, file
