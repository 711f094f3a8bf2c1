"""Weights of a model as its library names them, an adapter folded in, without a change to the model itself."""

import copy
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers.models.auto import modeling_auto

from mmembed.errors import InputError
from mmembed.models.adapters import adapted_layers, whole_layer
from mmembed.models.checkpoint import quiet

# which of the library's classes has the head that a model of text, or of text and pictures, is published with
_FULL = (
    modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
    modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
)


@torch.no_grad()
def merged_weights(model: Any) -> dict[str, Tensor]:
    """The weights on the CPU, an adapter folded into those it changes; ``model`` stays as it is.

    Raises:
        InputError: the base is quantised.
    """
    if getattr(model, "is_quantized", False):
        raise InputError(
            "export", expected="a base in whole weights", got="a quantised one",
            remedy="open the base, and its adapter, without quantize",
        )  # fmt: skip
    layers = dict(adapted_layers(model))
    inside = tuple(f"{name}." for name in layers)
    weights = {name: value.cpu() for name, value in model.state_dict().items() if not name.startswith(inside or "\0")}
    for name, layer in layers.items():
        whole = whole_layer(copy.deepcopy(layer))
        weights |= {f"{name}.{key}": value.cpu() for key, value in whole.state_dict().items()}
    return {name: value.detach().contiguous() for name, value in weights.items()}


def full_class(config: Any) -> str | None:
    """The name of the library's class with a head for such a config, or None where it has none."""
    for names in _FULL:
        name = names.get(config.model_type)
        if name is not None:
            return str(name[0] if isinstance(name, tuple) else name)
    return None


def save_weights(model: Any, weights: dict[str, Tensor], directory: Path, head: str | None = None) -> None:
    """Write config and safetensors as the library lays them out.

    Args:
        model: whose they are.
        weights: see :func:`merged_weights`.
        directory: where to.
        head: what a model with its head calls this one, and a dot: the layout of such a model, without its head, is
            written; None writes the layout of the model as it is.
    """
    if head is not None:
        # read anew, without the kernels that this model runs with
        config = type(model.config).from_dict(model.config.to_dict())
        weights = {head + name: value for name, value in weights.items()}
        with torch.device("meta"):
            model = getattr(transformers, str(full_class(config)))(config)
    with quiet():
        model.save_pretrained(directory, state_dict=weights)
