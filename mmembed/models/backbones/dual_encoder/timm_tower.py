"""A timm model with a linear projection as image tower: its config in open_clip's words, and its weights."""

from typing import Any

import timm
from huggingface_hub import hf_hub_download
from timm.data import resolve_model_data_config

from mmembed.errors import InputError, nearest
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
        InputError: the file is not one of this model.
    """
    if not tower.pretrained and tower.path is None:
        return
    file = tower.path or hf_hub_download(_facts(tower)["hf_hub_id"], _FILE)
    try:
        # with its classifier, so that timm checks every weight
        model = timm.create_model(tower.model, pretrained=True, pretrained_cfg_overlay={"file": file})
    except (RuntimeError, OSError) as error:
        raise InputError(
            file, expected=f"the weights of timm's {tower.model}", got=" ".join(str(error).split()),
            remedy="take model and file from the same place",
        ) from error  # fmt: skip
    model.reset_classifier(0)
    visual.trunk.load_state_dict(model.state_dict())


def _facts(tower: TimmTower) -> dict[str, Any]:
    return dict(timm.get_pretrained_cfg(tower.model).to_dict())
