"""Small random dual encoders: configs in open_clip's layout, and a tokenizer where that has to be trained."""

import tempfile
from collections.abc import Iterable
from dataclasses import fields
from typing import Any

import torch
from open_clip.model import CLIPTextCfg, CLIPVisionCfg
from open_clip.tokenizer import HFTokenizer, SimpleTokenizer
from tokenizers.processors import TemplateProcessing

from mmembed.errors import InputError, nearest
from mmembed.models.backbones.dual_encoder.checkpoint import DualCheckpoint, make_model
from mmembed.models.backbones.dual_encoder.timm_tower import timm_vision
from mmembed.models.families import ScratchFamily
from mmembed.models.hub import in_words
from mmembed.models.scratch import train_tokenizer
from mmembed.models.settings import DType, Scratch, TimmTower

WIDTH = 64
_TEXT = {"context_length": 77, "width": WIDTH, "heads": 4, "layers": 2}
_VISION = {"image_size": 56, "patch_size": 14, "width": WIDTH, "head_width": 16, "layers": 2}
_DECODER = {"context_length": 76, "vocab_size": 64, "width": WIDTH, "heads": 4, "layers": 1, "attn_pooler_heads": 4}
_HALVES = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), "resize_mode": "squash"}
# what open_clip, timm and torch raise for sizes and names that are not theirs
_ODD = (TypeError, AssertionError, RuntimeError, ArithmeticError, LookupError, AttributeError)
_PAD, _END = "<pad>", "</s>"
"""SigLIP's tokenizer puts the second behind every text."""

ARCHITECTURES: dict[str, dict[str, Any]] = {
    "clip": {"vision_cfg": _VISION, "text_cfg": _TEXT},
    "siglip": {
        "custom_text": True,
        "init_logit_bias": -10,
        "vision_cfg": _VISION | {"pool_type": "avg", "no_ln_pre": True},
        "text_cfg": _TEXT
        | {
            "context_length": 64, "no_causal_mask": True, "proj_bias": True, "pool_type": "last",
            "norm_kwargs": {"eps": 1e-6}, "hf_tokenizer_name": "siglip", "tokenizer_kwargs": {"clean": "canonicalize"},
        },
    },
    "coca": {
        "custom_text": True,
        "multimodal_cfg": _DECODER,
        "vision_cfg": _VISION | {"attentional_pool": True, "attn_pooler_heads": 4, "output_tokens": True},
        "text_cfg": _TEXT | {"context_length": 76, "embed_cls": True, "output_tokens": True},
    },
    "timm": {"vision_cfg": timm_vision(TimmTower("test_vit"))[0], "text_cfg": _TEXT},
}  # fmt: skip


def make_scratch(
    scratch: Scratch, texts: Iterable[str] | None, image_tower: TimmTower | None, dtype: DType
) -> DualCheckpoint:
    """A random model but for the weights of a pretrained image tower; the same settings and texts give the same bits.

    Raises:
        InputError: see :func:`scratch_config`; sizes that open_clip does not take; or an unusable image tower.
    """
    remedy = "leave text and vision out for the small default"
    with in_words("backbone.scratch", "fields that open_clip makes a model of", remedy, _ODD):
        config, preprocessing, tokenizer = scratch_config(scratch, texts)
        model, config = make_model(config, preprocessing, image_tower, scratch.seed)
    return DualCheckpoint(model.to(getattr(torch, dtype)), tokenizer, config)


def scratch_config(scratch: Scratch, texts: Iterable[str] | None) -> tuple[dict[str, Any], dict[str, Any], Any]:
    """Config, preprocessing facts and tokenizer of a small one.

    Raises:
        InputError: an unknown architecture or field of a tower, with the nearest; or no texts for a vocabulary.
    """
    name = scratch.architecture or "clip"
    if name not in ARCHITECTURES:
        raise InputError(
            "backbone.scratch.architecture", expected="a dual encoder", got=f"'{name}'",
            remedy=nearest(name, ARCHITECTURES),
        )  # fmt: skip
    config = {"embed_dim": WIDTH, **ARCHITECTURES[name]}
    for part, given, known in (("text", scratch.text, CLIPTextCfg), ("vision", scratch.vision, CLIPVisionCfg)):
        _check_fields(f"backbone.scratch.{part}", given, {field.name for field in fields(known)})
        config[f"{part}_cfg"] = config[f"{part}_cfg"] | given
    text = config["text_cfg"]
    if "hf_tokenizer_name" not in text:
        return config, {}, SimpleTokenizer(context_length=text["context_length"])
    if texts is None:
        raise InputError("backbone.scratch", expected="texts to train a tokenizer on", got="none", remedy="give path")
    tokenizer = _trained(texts, scratch.vocab_size, text)
    config["text_cfg"] = text | {"vocab_size": len(tokenizer.tokenizer)}
    return config, _HALVES, tokenizer


def _trained(texts: Iterable[str], vocab_size: int, text: dict[str, Any]) -> Any:
    family = ScratchFamily((_PAD, _END), _END, _PAD, "", config=_none, preprocessing=_none)
    tokenizer = train_tokenizer(texts, vocab_size, family)
    end = (_END, tokenizer.convert_tokens_to_ids(_END))
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(f"$A {_END}", special_tokens=[end])
    with tempfile.TemporaryDirectory() as directory:
        tokenizer.save_pretrained(directory)
        return HFTokenizer(directory, context_length=text["context_length"], **text["tokenizer_kwargs"])


def _none(*_: Any) -> dict[str, Any]:
    return {}


def _check_fields(where: str, given: dict[str, Any], known: set[str]) -> None:
    for name in given:
        if name not in known:
            raise InputError(
                where, expected="a field of open_clip's config", got=f"'{name}'", remedy=nearest(name, known)
            )
