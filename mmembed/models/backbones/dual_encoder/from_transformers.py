"""CLIP and SigLIP in transformers' layout, told in open_clip's words: config, preprocessing, tokenizer and weights.

Many fine-tuned ones are released so (BGE-VL, arXiv:2412.14475). All is read of the repository's own files. That
transformers crops a picture a pixel beside where open_clip does is a setting, ``transform: transformers``.
"""

from typing import Any

import timm
import torch
from open_clip.tokenizer import HFTokenizer, get_clean_fn
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoConfig

from mmembed.errors import InputError
from mmembed.models.backbones.dual_encoder.weight_names import clip_weights, siglip_weights
from mmembed.models.hub import Where, find_file, read_json, read_tokenizer
from mmembed.models.released import folder_of_torch_files, read_tensors

_TRANSLATED = {"clip": clip_weights, "siglip": siglip_weights}
MODEL_TYPES = tuple(_TRANSLATED)
_SHARDS = ("model.safetensors", "pytorch_model.bin")
_INTERPOLATION = {2: "bilinear", 3: "bicubic"}
# how open_clip cleans a text before each reads it
_CLEAN = {"clip": "whitespace", "siglip": "canonicalize"}


class RepositoryTokenizer(HFTokenizer):  # type: ignore[misc]
    """open_clip's wrapper around a tokenizer that was opened before.

    Args:
        tokenizer: of transformers.
        context: tokens that a text is padded or cut to.
        clean: how texts are cleaned first, as open_clip names it.
    """

    def __init__(self, tokenizer: Any, context: int, clean: str) -> None:
        self.tokenizer = tokenizer
        self.context_length = context
        self.clean_fn = get_clean_fn(clean)
        self.strip_sep_token = False
        self.tokenizer_mode = ""


def read_config(path: str, where: Where) -> tuple[dict[str, Any], dict[str, Any]]:
    """``model_cfg`` and ``preprocess_cfg`` as open_clip would have them.

    Raises:
        InputError: something in the config that open_clip's modules do not have.
    """
    config = AutoConfig.from_pretrained(path, trust_remote_code=False, **where)
    facts = read_json(path, "preprocessor_config.json", where)
    facts = facts or read_json(path, "processor_config.json", where).get("image_processor", {})
    if config.text_config.hidden_act != config.vision_config.hidden_act:
        raise InputError(
            f"{path}: config.json: hidden_act", expected="one activation for both towers",
            got=f"{config.text_config.hidden_act} and {config.vision_config.hidden_act}", remedy="no other is read",
        )  # fmt: skip
    model = _clip(config) if config.model_type == "clip" else _siglip(path, config)
    # the name says that the tokenizer lies beside, and is no CLIP's of open_clip
    model["text_cfg"] |= {
        "hf_tokenizer_name": config.model_type, "tokenizer_kwargs": {"clean": _CLEAN[config.model_type]},
    }  # fmt: skip
    return model | _activation(path, config.text_config.hidden_act, model), _preprocessing(path, facts, config)


def make_tokenizer(path: str, where: Where, config: dict[str, Any]) -> RepositoryTokenizer:
    """The repository's tokenizer; it pads at the end, with a token that no tower reads behind the end of a text."""
    tokenizer = read_tokenizer(path, where)
    text = config["text_cfg"]
    tokenizer.padding_side = "right"
    if not text.get("no_causal_mask"):
        # CLIP's pads with the token that ends a text, which could not be told from it
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(0)
    return RepositoryTokenizer(tokenizer, text["context_length"], text["tokenizer_kwargs"]["clean"])


def read_weights(path: str, where: Where) -> dict[str, Tensor]:
    """All weights by open_clip's names, of safetensors or of torch's own files.

    Raises:
        InputError: no weights, or a file that is missing or holds anything else.
    """
    folder = folder_of_torch_files(path, where)
    name = _SHARDS[0] if folder is None else _SHARDS[1]
    names = sorted(set(read_json(path, f"{name}.index.json", where).get("weight_map", {}).values())) or [name]
    weights: dict[str, Tensor] = {}
    for shard in names:
        file = find_file(path, shard, where)
        if file is None:
            raise InputError(f"{path}: {shard}", expected="weights", got="no such file", remedy="download it again")
        weights |= load_file(file) if file.suffix == ".safetensors" else read_tensors(file)
    return _TRANSLATED[str(read_json(path, "config.json", where)["model_type"])](weights)


def _clip(config: Any) -> dict[str, Any]:
    text, vision = config.text_config, config.vision_config
    eos = text.eos_token_id
    # openai's configs name a wrong end, and the highest token of a text is read
    pool = {"pool_type": "argmax"} if eos == 2 else {"pool_type": "eos", "eos_id": eos}
    return {
        "embed_dim": config.projection_dim,
        "vision_cfg": _sizes(vision)
        | {
            "image_size": vision.image_size, "patch_size": vision.patch_size,
            "head_width": vision.hidden_size // vision.num_attention_heads,
        },
        "text_cfg": _text(text) | pool,
    }  # fmt: skip


def _siglip(path: str, config: Any) -> dict[str, Any]:
    text, vision = config.text_config, config.vision_config
    return {
        "embed_dim": text.projection_size,
        "custom_text": True,
        "init_logit_bias": -10,
        "vision_cfg": {
            "image_size": vision.image_size, "timm_model_name": _timm_name(path, vision), "timm_pool": "map",
            "timm_proj": "none",
        },
        "text_cfg": _text(text) | {"no_causal_mask": True, "proj_bias": True, "pool_type": "last"},
    }  # fmt: skip


def _sizes(config: Any) -> dict[str, Any]:
    return {
        "width": config.hidden_size, "layers": config.num_hidden_layers,
        # open_clip cuts the product with the width to a whole number
        "mlp_ratio": (config.intermediate_size + 0.5) / config.hidden_size,
        "norm_kwargs": {"eps": config.layer_norm_eps},
    }  # fmt: skip


def _text(text: Any) -> dict[str, Any]:
    return _sizes(text) | {
        "context_length": text.max_position_embeddings, "vocab_size": text.vocab_size,
        "heads": text.num_attention_heads,
    }  # fmt: skip


def _activation(path: str, name: str, model: dict[str, Any]) -> dict[str, Any]:
    if name == "quick_gelu":
        return {"quick_gelu": True}
    if name == "gelu":
        return {}
    if name != "gelu_pytorch_tanh":
        raise InputError(
            f"{path}: config.json: hidden_act", expected="gelu, quick_gelu or gelu_pytorch_tanh", got=name,
            remedy="no other is read",
        )  # fmt: skip
    approximate = {"act_kwargs": {"approximate": "tanh"}}
    return {tower: model[tower] | approximate for tower in ("vision_cfg", "text_cfg")}


def _timm_name(path: str, vision: Any) -> str:
    """Timm's model of the same sizes."""
    wanted = (vision.hidden_size, vision.num_hidden_layers, vision.num_attention_heads, vision.intermediate_size)
    names: list[str] = timm.list_models(f"vit_*_patch{vision.patch_size}_siglip_{vision.image_size}")
    for name in names:
        with torch.device("meta"):
            model = timm.create_model(name, num_classes=0)
        block = model.blocks[0]
        if (model.embed_dim, len(model.blocks), block.attn.num_heads, block.mlp.fc1.out_features) == wanted:
            return name
    raise InputError(
        f"{path}: config.json: vision_config", expected=f"sizes that timm has: {', '.join(names) or 'no such model'}",
        got=f"width, layers, heads and feed-forward {wanted}", remedy="no other is read",
    )  # fmt: skip


def _preprocessing(path: str, facts: dict[str, Any], config: Any) -> dict[str, Any]:
    """Size, mean, deviation and resize of pictures."""
    side = config.vision_config.image_size
    resample = facts.get("resample", 3)
    if resample not in _INTERPOLATION:
        raise InputError(
            f"{path}: preprocessor_config.json: resample", expected="2 or 3, bilinear or bicubic", got=resample,
            remedy="no other is read",
        )  # fmt: skip
    said = {"mean": facts.get("image_mean"), "std": facts.get("image_std")}
    crops = facts.get("do_center_crop", config.model_type == "clip")
    return {name: value for name, value in said.items() if value is not None} | {
        "size": [side, side], "interpolation": _INTERPOLATION[resample],
        "resize_mode": "shortest" if crops else "squash",
    }  # fmt: skip


def is_transformers(path: str, where: Where) -> bool:
    """Whether a repository or directory has its model in transformers' layout."""
    return read_json(path, "config.json", where).get("model_type") in MODEL_TYPES
