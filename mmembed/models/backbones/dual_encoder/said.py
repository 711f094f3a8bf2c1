"""What ``open_clip_config.json`` says."""

from typing import Any

from mmembed.errors import InputError

CONFIG = "open_clip_config.json"


def read_said(path: str, said: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """``model_cfg`` and ``preprocess_cfg``, mappings as they should be."""
    where = f"{path}: {CONFIG}"
    whole = _mapping(where, said)
    config = _mapping(f"{where}: model_cfg", whole.get("model_cfg", {}))
    if not {"embed_dim", "vision_cfg", "text_cfg"} <= set(config):
        raise InputError(
            where, expected="model_cfg with embed_dim, vision_cfg and text_cfg", got=", ".join(whole) or "nothing",
            remedy="write it as open_clip does",
        )  # fmt: skip
    for name in ("vision_cfg", "text_cfg"):
        _mapping(f"{where}: {name}", config[name])
    return config, _mapping(f"{where}: preprocess_cfg", whole.get("preprocess_cfg", {}))


def _mapping(where: str, said: Any) -> dict[str, Any]:
    if not isinstance(said, dict):
        raise InputError(
            where, expected="a mapping", got=f"a {type(said).__name__}", remedy="write it as open_clip does"
        )
    return said
