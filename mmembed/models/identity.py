"""What an embedder's vectors depend on besides the item, as named parts: equal parts, equal vectors.

Where the weights were loaded from is no part of it, what they are is. A difference between two models can so be told in
words, which one fingerprint of everything could not.
"""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmembed.errors import InputError
from mmembed.files import fingerprint
from mmembed.models.embedder import Embedder
from mmembed.settings import dump_settings, flat_settings

LIBRARIES = (
    *("torch", "torchvision", "transformers", "tokenizers", "open_clip_torch", "timm"),
    *("peft", "bitsandbytes", "flash-attn"),
    *("pillow", "av", "torchcodec", "decord", "pypdfium2"),
)
"""Packages that turn files into vectors; another version of one may give other vectors."""
CODE = ("items", "media", "models")
"""What of this package does; a version number does not change while one works on it."""
# where the weights come from, how they were trained and how rows are laid out changes no vector; what was added to a
# checkpoint is in its weights, config and tokenizer
_NOT_SETTINGS = (
    *("path", "revision", "adapter", "adapter_revision", "scratch", "gradient_checkpointing", "padding_side"),
    *("special_tokens", "image_tower"),
)
_NOT_OF_REGIONS = ("checkpoint", "revision", "sam", "sam_revision", "cache_mb")
_NOT_OF_ADAPTER = ("base_model_name_or_path", "revision", "inference_mode", "task_type", "auto_mapping", "peft_version")


def identity(model: Embedder) -> dict[str, str]:
    """The parts by name: weights, adapter, config, tokenizer, every setting, device, libraries and code.

    Reads every weight once, which takes seconds for large models.
    """
    weights = model.state_dict()
    adapter = {name: tensor for name, tensor in weights.items() if "lora_" in name or "token_adapter.trainable" in name}
    base = {name: tensor for name, tensor in weights.items() if name not in adapter}
    return {
        "weights": weights_fingerprint(base),
        "adapter": fingerprint(weights_fingerprint(adapter), _adapter_config(model)) if adapter else "none",
        **model.backbone.facts(),
        **model.pooler.facts(),
        **_settings(model),
        "device": model.device.type,
        **{f"library.{name}": _version(name) for name in LIBRARIES},
        "code": _code(),
    }


def tower_identity(model: Embedder) -> dict[str, str]:
    """The parts that what :meth:`Embedder.vision` gives depends on besides the medium, by name.

    Weights of the tower and of what marks its patches, config, settings of backbone and regions, arithmetic (autocast
    as it is where this is called), device, libraries and code. Settings that only the language model reads are among
    them: one too many costs a computation, one too few a wrong vector. Reads every weight of the tower once.
    """
    weights = model.backbone.tower.state_dict()
    adapted = any("lora_" in name for name in weights)
    marks = model.regions.state_dict() if model.regions.marks_patches else {}
    settings = {
        name: value
        for name, value in _settings(model).items()
        if name.startswith(("backbone.", "regions.")) or name in ("backbone", "regions")
    }
    kind = model.device.type
    return {
        "features": "of the tower",
        "weights": weights_fingerprint(weights),
        "adapter": _adapter_config(model) if adapted else "none",
        "marks": weights_fingerprint(marks) if marks else "none",
        **model.backbone.facts(),
        **settings,
        "compiled": str(model.settings.speed.compile),
        "patch_products": str(model.settings.speed.patch_products),
        "taps": repr(model.backbone.taps),
        "autocast": str(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else "none",
        "float32_products": torch.get_float32_matmul_precision(),
        "device": kind,
        **{f"library.{name}": _version(name) for name in LIBRARIES},
        "code": _code(),
    }


def weights_fingerprint(weights: Mapping[str, Tensor]) -> str:
    """Names tensors by their names, types and bytes, wherever they were loaded from."""
    parts: list[str | bytes] = []
    for name, tensor in sorted(weights.items()):
        flat = tensor.detach().cpu().contiguous().flatten()
        digest = fingerprint(flat.view(torch.uint8).numpy().tobytes())
        parts += [name, str(tensor.dtype), repr(tuple(tensor.shape)), digest]
    return fingerprint(*parts)


def _settings(model: Embedder) -> dict[str, str]:
    values = dump_settings(model.settings)
    for name in ("lora", "pooler_weights", "regions_weights"):
        values.pop(name)
    # all else of it moves a vector by rounding, as the padding side does
    autocast = values.pop("speed")["autocast"]
    values |= {} if autocast is None else {"speed": {"autocast": autocast}}
    for name in _NOT_SETTINGS:
        values["backbone"]["init_args"].pop(name, None)
    if model.settings.regions is not None:
        for name in _NOT_OF_REGIONS:
            values["regions"]["init_args"].pop(name, None)
    return {name.replace("init_args.", ""): json.dumps(value) for name, value in flat_settings(values).items()}


def _adapter_config(model: Embedder) -> str:
    configs: Mapping[str, Any] = model.backbone.model.peft_config
    shown = {
        name: {field: value for field, value in config.to_dict().items() if field not in _NOT_OF_ADAPTER}
        for name, config in configs.items()
    }
    return json.dumps(
        shown, sort_keys=True, default=lambda value: sorted(value) if isinstance(value, set) else str(value)
    )


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "none"


@cache
def _code() -> str:
    return code_fingerprint(Path(__file__).parents[1], CODE)


def code_fingerprint(root: Path, folders: Sequence[str]) -> str:
    """Names the Python files below some folders of ``root`` by their paths and bytes.

    Raises:
        InputError: a folder without any, which was renamed: its code would no longer count.
    """
    parts: list[str | bytes] = []
    for folder in folders:
        files = sorted((root / folder).rglob("*.py"))
        if not files:
            raise InputError(root / folder, expected="Python files", got="none", remedy="name the folder as it is now")
        for path in files:
            parts += [path.relative_to(root).as_posix(), path.read_bytes()]
    return fingerprint(*parts)
