"""The config of Phi-3-vision and Phi-3.5-vision, as published, for transformers' own config machinery."""

import math
import re
from collections.abc import Mapping
from typing import Any, ClassVar

from safetensors import safe_open
from transformers import AutoConfig, CLIPVisionConfig, Phi3Config

from mmembed.errors import InputError
from mmembed.models.hub import Where, find_file, read_json

CLIP_LARGE: dict[str, Any] = {
    "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16,
    "image_size": 336, "patch_size": 14,
}  # fmt: skip
"""The tower that the published code builds whatever the config says: CLIP ViT-L/14 at 336 pixels."""
LAYOUT: dict[str, Any] = {
    "use_hd_transform": True, "hd_transform_order": "sub_glb", "with_learnable_separator": True,
    "projection_cls": "mlp",
}  # fmt: skip
"""What ``embd_layer`` says of the released Phi-3-vision and Phi-3.5-vision."""
_HEAD_WIDTH = 64


class Phi3VConfig(Phi3Config):  # type: ignore[misc]
    """A Phi-3 config and its tower's.

    The published files describe the tower in ``img_processor`` and ``embd_layer`` only, and mean CLIP ViT-L/14-336;
    ``vision_config`` is written beside them.
    """

    model_type = "phi3_v"
    sub_configs: ClassVar[dict[str, Any]] = {"vision_config": CLIPVisionConfig}

    vision_config: Any = None
    img_processor: dict[str, Any] | None = None
    embd_layer: dict[str, Any] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        if not isinstance(self.vision_config, CLIPVisionConfig):
            self.vision_config = CLIPVisionConfig(**(CLIP_LARGE | (self.vision_config or {})))
        super().__post_init__(**kwargs)
        # the older name of what transformers now calls rope_type
        self.rope_parameters.pop("type", None)

    def to_dict(self) -> dict[str, Any]:
        """All fields, and those of the published files that transformers has renamed, for tools that read these."""
        values: dict[str, Any] = super().to_dict()
        values["architectures"] = ["Phi3VForCausalLM"]
        rope = self.rope_parameters
        if rope["rope_type"] == "longrope":
            factors = {name: rope[name] for name in ("long_factor", "short_factor")}
            values |= {"rope_theta": rope["rope_theta"], "rope_scaling": {"type": "su"} | factors}
        return values


AutoConfig.register(Phi3VConfig.model_type, Phi3VConfig, exist_ok=True)


def read_phi3_v_config(path: str, where: Where) -> Any:
    """The checkpoint's config; of a tower that is not CLIP ViT-L/14-336 the sizes are read from its weights.

    Raises:
        InputError: pictures laid out otherwise than in the released Phi-3-vision and Phi-3.5-vision.
    """
    config = AutoConfig.from_pretrained(path, trust_remote_code=False, **where)
    if config.model_type != Phi3VConfig.model_type:
        return config
    # the code it points to is not needed, and not beside what is saved from here
    vars(config).pop("auto_map", None)
    said = config.embd_layer or {}
    unlike = {name: said[name] for name, value in LAYOUT.items() if said.get(name, value) != value}
    if unlike:
        raise InputError(
            f"{path}: embd_layer", expected=f"{ {name: LAYOUT[name] for name in unlike} }", got=unlike,
            remedy="use a checkpoint with the layout of Phi-3.5-vision",
        )  # fmt: skip
    width = (config.img_processor or {}).get("image_dim_out", CLIP_LARGE["hidden_size"])
    if width != config.vision_config.hidden_size and "vision_config" not in read_json(path, "config.json", where):
        config.vision_config = CLIPVisionConfig(**tower_sizes(_shapes(path, where)))
    return config


def tower_sizes(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """Fields of a CLIP tower's config by its weights' shapes.

    The number of heads leaves no trace in the weights: CLIP's are 64 wide, and a narrower tower is taken to have two.
    """
    tower = {
        key.rsplit("img_processor.", 1)[1].removeprefix("vision_model."): shape
        for key, shape in shapes.items()
        if "img_processor." in key
    }
    width, _, patch, _ = tower["embeddings.patch_embedding.weight"]
    places = tower["embeddings.position_embedding.weight"][0] - 1
    layers = {int(found[1]) for key in tower if (found := re.match(r"encoder\.layers\.(\d+)\.", key))}
    return {
        "hidden_size": width,
        "intermediate_size": tower["encoder.layers.0.mlp.fc1.weight"][0],
        "num_hidden_layers": len(layers),
        "num_attention_heads": max(2, width // _HEAD_WIDTH),
        "image_size": math.isqrt(places) * patch,
        "patch_size": patch,
    }


def _shapes(path: str, where: Where) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a checkpoint's weights, from the files' headers alone."""
    index = read_json(path, "model.safetensors.index.json", where).get("weight_map", {})
    shapes: dict[str, tuple[int, ...]] = {}
    for name in sorted(set(index.values())) or ["model.safetensors"]:
        file = find_file(path, name, where)
        if file is None:
            raise FileNotFoundError(f"no {name}")
        with safe_open(file, "pt") as weights:
            shapes |= {key: tuple(weights.get_slice(key).get_shape()) for key in sorted(weights.keys())}
    return shapes
