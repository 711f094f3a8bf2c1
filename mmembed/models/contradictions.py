"""What a checkpoint says of itself, held against the profile that it is opened by."""

from pathlib import Path
from typing import Any

from mmembed.errors import InputError
from mmembed.models.backbones.dual_encoder.said import CONFIG as OPEN_CLIP_CONFIG
from mmembed.models.hub import find_file, in_words, read_json, where_of
from mmembed.models.profiles import Released
from mmembed.models.settings import EmbedderSettings

OPEN_CLIP = "open_clip"
"""The architecture of rows whose layout is open_clip's, which may have a ``config.json`` besides."""
POOLING_FILE = "1_Pooling/config.json"
_POOLERS = {"LastToken": "lasttoken", "MeanToken": "mean"}


def refuse_contradictions(settings: EmbedderSettings, row: Released | None, model: str, profile: str | None) -> None:
    """Refuse a checkpoint whose own files say otherwise than its profile.

    Args:
        settings: as it is to be opened; the backbone's ``path`` and ``revision`` are set.
        row: of the checkpoint, where one is known.
        model: as it was asked for.
        profile: likewise.

    Raises:
        InputError: another architecture than the row's, or another pooling than the profile's.
    """
    backbone: Any = settings.backbone
    if not (Path(backbone.path).is_dir() or "/" in backbone.path):
        return
    with in_words(backbone.path, "a directory or Hub id", "check the name"):
        where = where_of(backbone.path, backbone.revision)
        is_open_clip = row is not None and row.architecture == OPEN_CLIP
        is_as_said = is_open_clip and find_file(backbone.path, OPEN_CLIP_CONFIG, where) is not None
        said = OPEN_CLIP if is_as_said else read_json(backbone.path, "config.json", where).get("model_type")
        pooling = read_json(backbone.path, POOLING_FILE, where)
    if row is not None and said is not None and said != row.architecture:
        raise InputError(
            f"{backbone.path}: config.json: model_type", expected=f"'{row.architecture}', as the row of {model} says",
            got=f"'{said}'", remedy="check the path, or name another profile",
        )  # fmt: skip
    wanted = _POOLERS.get(type(settings.pooler).__name__)
    modes = _modes(pooling)
    if wanted is not None and modes and modes != {wanted}:
        raise InputError(
            f"{backbone.path}: {POOLING_FILE}", expected=f"'{wanted}', as profile {profile or model} pools",
            got=", ".join(sorted(modes)), remedy="name another profile",
        )  # fmt: skip


def _modes(pooling: dict[str, Any]) -> set[str]:
    """The pooling modes that a file of sentence-transformers turns on, in its newer schema or its older one."""
    if "pooling_mode" in pooling:
        mode = pooling["pooling_mode"]
        return set(map(str, mode)) if isinstance(mode, list) else {str(mode)}
    older = {"cls_token": "cls", "mean_tokens": "mean", "max_tokens": "max", "lasttoken": "lasttoken"}
    return {older.get(name, name) for key, is_on in pooling.items()
            if is_on is True and (name := key.removeprefix("pooling_mode_")) != key}  # fmt: skip
