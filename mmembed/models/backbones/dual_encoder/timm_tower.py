"""A timm model with a linear projection as image tower: its config in open_clip's words, and its weights."""

from pathlib import Path
from typing import Any

import timm
from safetensors import SafetensorError
from timm.data import resolve_model_data_config
from torch import nn

from mmembed.errors import InputError, nearest
from mmembed.models.repository import fetched
from mmembed.models.settings import TimmTower

_FILE = "model.safetensors"


def timm_vision(tower: TimmTower) -> tuple[dict[str, Any], dict[str, Any]]:
    """``vision_cfg`` and ``preprocess_cfg`` of a timm model: its own pooling, input size, mean and deviation.

    Raises:
        InputError: timm knows no such model; the nearest name is given.
    """
    if not timm.is_model(tower.model):
        raise InputError(
            "image_tower.model", expected="a model that timm knows", got=f"'{tower.model}'",
            remedy=nearest(tower.model, timm.list_models()),
        )  # fmt: skip
    facts = resolve_model_data_config({}, pretrained_cfg=_facts(tower))
    size = list(facts["input_size"][1:])
    vision = {"timm_model_name": tower.model, "timm_pool": "", "timm_proj": "linear", "image_size": size}
    return vision, {name: facts[name] for name in ("mean", "std", "interpolation")}


def load_timm_tower(visual: Any, tower: TimmTower) -> None:
    """Give the tower timm's weights, or those of a file; its projection stays as it was drawn.

    Raises:
        InputError: the file is not there or not one of this model, or timm's own cannot be had.
    """
    if not tower.pretrained and tower.path is None:
        return
    file = _downloaded(tower) if tower.path is None else tower.path
    if not Path(file).is_file():
        raise InputError(
            file, expected="a safetensors file", got="no such file",
            remedy="check image_tower.path, or leave it out for timm's own weights",
        )  # fmt: skip
    try:
        # with its classifier, so that timm checks every weight
        model = timm.create_model(tower.model, pretrained=True, pretrained_cfg_overlay={"file": file})
    except (RuntimeError, OSError, SafetensorError) as error:
        raise InputError(
            file, expected=f"the weights of timm's {tower.model}", got=_said(error),
            remedy="take model and file from the same place",
        ) from error  # fmt: skip
    model.reset_classifier(0)
    visual.trunk.load_state_dict(model.state_dict())


def set_activation(visual: Any, vision: dict[str, Any]) -> None:
    """Give a timm tower the activation that its config says, which open_clip itself gives to its own towers alone.

    SigLIP was trained with an approximate GELU, and timm's models of its name have the exact one.
    """
    said = vision.get("act_kwargs") or {}
    if "timm_model_name" not in vision or not said:
        return
    for module in visual.modules():
        if isinstance(module, nn.GELU):
            module.approximate = said["approximate"]


def _downloaded(tower: TimmTower) -> str:
    repository = _facts(tower).get("hf_hub_id")
    expected = f"timm's weights of {tower.model} on this machine or on the Hub"
    remedy = "name a safetensors file in image_tower.path, or set pretrained to false"
    if not repository:
        raise InputError("image_tower.pretrained", expected=expected, got="none, timm has no such", remedy=remedy)
    try:
        file = fetched(repository, _FILE, None)
    except InputError as error:
        raise InputError("image_tower.pretrained", expected=expected, got=_said(error), remedy=remedy) from error
    if file is None:
        got = f"no {_FILE} in {repository}"
        raise InputError("image_tower.pretrained", expected=expected, got=got, remedy=remedy)
    return str(file)


def _said(error: Exception) -> str:
    return " ".join(str(error).split())


def _facts(tower: TimmTower) -> dict[str, Any]:
    return dict(timm.get_pretrained_cfg(tower.model).to_dict())
