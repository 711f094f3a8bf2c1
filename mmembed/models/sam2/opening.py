"""Opening a SAM 2: transformers' directory or Hub repository, or a released ``.pt`` file."""

from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors.torch import load_file
from torch import Tensor
from transformers import Sam2Config, Sam2Model

from mmembed.errors import InputError
from mmembed.models.checkpoint import quiet, refuse_difference, refuse_gaps
from mmembed.models.hub import Where, in_words, read_json, where_of
from mmembed.models.released import read_torch_file
from mmembed.models.sam2.keys import native_weights
from mmembed.models.sam2.sam import Sam
from mmembed.models.sam2.sizes import TOKEN, config_of, scratch_model
from mmembed.models.settings import DType
from mmembed.models.settings.regions.sam2 import Sam2Scratch

_EXPECTED = "a SAM 2: a directory or Hub id in transformers' layout, or a released .pt or .safetensors file"
_REMEDY = "facebook/sam2.1-hiera-base-plus is usual"
# a released checkpoint of the Hub names the model for clips, of which the model for pictures is a part
_MODEL_TYPES = ("sam2", "sam2_video")
_RELEASED_SIDE = 1024


def open_sam(checkpoint: str, revision: str | None = None, dtype: DType = "float32", *, cache_mb: int = 512) -> Sam:
    """Open a SAM 2, frozen.

    Args:
        checkpoint: directory or Hub id in transformers' layout, or a file in the original one; a ``config.json`` beside
            such a file says its size where it is none of the released ones.
        revision: commit of the Hub repository.
        dtype: type of the weights, but for those that encode prompts, which stay float32.
        cache_mb: encoded pictures kept in memory, in MiB.

    Raises:
        InputError: nothing there, no SAM 2, or missing or unexpected weights, which are listed.
    """
    model = _of_file(Path(checkpoint)) if Path(checkpoint).is_file() else _of_library(checkpoint, revision)
    return Sam(model, dtype=dtype, cache_mb=cache_mb)


def scratch_sam(scratch: Sam2Scratch, dtype: DType = "float32", *, cache_mb: int = 512) -> Sam:
    """Make a small random SAM 2, frozen.

    Raises:
        InputError: a side or fields that no such model has.
    """
    _check_side(scratch.image_size, "regions.scratch.image_size")
    return Sam(scratch_model(scratch), dtype=dtype, cache_mb=cache_mb)


def sam_side(checkpoint: str, revision: str | None = None) -> int:
    """The side of the square that a SAM 2 sees, in pixels, read without its weights.

    Raises:
        InputError: nothing there, or no SAM 2.
    """
    if Path(checkpoint).is_file():
        config = _config_beside(Path(checkpoint))
        return _RELEASED_SIDE if config is None else _side(config, checkpoint)
    return _side(_library_config(checkpoint, where_of(checkpoint, revision)), checkpoint)


def _of_library(checkpoint: str, revision: str | None) -> Sam2Model:
    where = where_of(checkpoint, revision)
    config = _library_config(checkpoint, where)
    with in_words(checkpoint, _EXPECTED, _REMEDY), quiet():
        model, info = Sam2Model.from_pretrained(
                checkpoint, config=config, use_safetensors=True, dtype=torch.float32, output_loading_info=True,
                ignore_mismatched_sizes=True, **where,
            )  # fmt: skip
    refuse_gaps(checkpoint, info, ())
    return model


def _of_file(path: Path) -> Sam2Model:
    weights = native_weights(_read(path), str(path))
    config = _config_beside(path) or config_of(weights, str(path))
    model = Sam2Model(config)
    refuse_difference(
        path, weights, model.state_dict(), expected="exactly the weights of a SAM 2 of its size",
        remedy="use an intact copy, or the config.json of its size beside it",
    )  # fmt: skip
    model.load_state_dict(weights)
    return model


def _read(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        with in_words(path, _EXPECTED, _REMEDY):
            return dict(load_file(path))
    values = read_torch_file(path, _EXPECTED, _REMEDY)
    found = values.get("model") if isinstance(values, dict) else None
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise InputError(path, expected="a dict with the weights under 'model'", got=_said(values), remedy=_REMEDY)
    return found


def _said(values: Any) -> str:
    return f"a dict of {', '.join(map(str, list(values)[:5]))}" if isinstance(values, dict) else type(values).__name__


def _library_config(checkpoint: str, where: Where) -> Sam2Config:
    with in_words(checkpoint, _EXPECTED, _REMEDY, also=(StrictDataclassError,)):
        values = read_json(checkpoint, "config.json", where)
        return _config(values, checkpoint)


def _config_beside(path: Path) -> Sam2Config | None:
    if not (path.parent / "config.json").is_file():
        return None
    return _library_config(str(path.parent), {})


def _config(values: dict[str, Any], checkpoint: str) -> Sam2Config:
    if values.get("model_type") not in _MODEL_TYPES:
        raise InputError(
            f"{checkpoint}: config.json", expected=f"model_type {' or '.join(_MODEL_TYPES)}",
            got=f"'{values.get('model_type')}'" if values else "no such file", remedy=_REMEDY,
        )  # fmt: skip
    parts = ("vision_config", "prompt_encoder_config", "mask_decoder_config")
    config = Sam2Config(**{name: _plain(values[name]) for name in parts if name in values})
    _side(config, checkpoint)
    return config


def _plain(part: dict[str, Any]) -> dict[str, Any]:
    """A part's fields without the name of its class, which is another in a model for clips."""
    return {name: value for name, value in part.items() if name != "model_type"}


def _side(config: Sam2Config, checkpoint: str) -> int:
    side: int = config.prompt_encoder_config.image_size
    return _check_side(side, f"{checkpoint}: image_size")


def _check_side(side: int, where: str) -> int:
    if side < TOKEN or side % TOKEN:
        raise InputError(where, expected=f"a multiple of {TOKEN} pixels", got=side, remedy="1024 is SAM 2's own")
    return side
