"""Checkpoints in the libraries' own layout, opened strictly: no pickle, no remote code, no weight left to chance."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import AutoModel, AutoTokenizer, BitsAndBytesConfig
from transformers.utils import cached_file
from transformers.utils import logging as library_logging

from mmembed.errors import InputError
from mmembed.files import write_json
from mmembed.models.settings import DType

# what a checkpoint saved with its language-model head holds beyond the base model
HEAD = "lm_head."
# the modules that are never quantised
TOWER = ["visual"]
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass
class Checkpoint:
    """A base model without its head, its tokenizer, and the facts of its image preprocessing."""

    model: Any
    tokenizer: Any
    image_mean: tuple[float, ...] = CLIP_MEAN
    image_std: tuple[float, ...] = CLIP_STD


def open_checkpoint(
    path: str,
    *,
    revision: str | None,
    dtype: DType,
    attention: str,
    quantize: Literal["nf4", "int8"] | None = None,
) -> Checkpoint:
    """Open a directory or Hub repository.

    Args:
        path: directory or Hub id.
        revision: commit of the Hub repository.
        dtype: type of the weights.
        attention: its kernel, as transformers names it.
        quantize: hold the language model's linear layers in 4 or 8 bits; then no weight trains but an adapter's.

    Raises:
        InputError: nothing there, no safetensors, or missing or unexpected weights, which are listed; or what
            quantises is not installed.
    """
    where: dict[str, Any] = {"revision": revision} if revision else {}
    how: dict[str, Any] = {} if quantize is None else {"quantization_config": _quantization(quantize, dtype)}
    try:
        with _quiet():
            model, info = AutoModel.from_pretrained(
                path,
                dtype=getattr(torch, dtype),
                attn_implementation=attention,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
                # a weight of another shape is reported here, and refused below by name
                ignore_mismatched_sizes=True,
                **how,
                **where,
            )
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False, **where)
    except (OSError, ValueError) as error:
        raise InputError(
            path, expected="a checkpoint with config.json, safetensors and tokenizer", got=" ".join(str(error).split()),
            remedy="check the path or Hub id",
        ) from error  # fmt: skip
    _refuse_gaps(path, info)
    if quantize is not None:
        _settle_quantised(model)
    if not tokenizer.chat_template:
        tokenizer.chat_template = _read_json(path, "chat_template.json", where).get("chat_template")
    facts = _read_json(path, "preprocessor_config.json", where)
    facts = facts or _read_json(path, "processor_config.json", where).get("image_processor", {})
    mean, std = facts.get("image_mean", CLIP_MEAN), facts.get("image_std", CLIP_STD)
    return Checkpoint(model, tokenizer, tuple(mean), tuple(std))


def save_checkpoint(checkpoint: Checkpoint, directory: Path) -> None:
    """Write model, tokenizer and preprocessing facts as transformers lays them out.

    Raises:
        InputError: the weights are quantised: what they were rounded from is the checkpoint.
    """
    if getattr(checkpoint.model, "is_quantized", False):
        raise InputError(
            directory, expected="weights as they were opened, or an adapter on them", got="a quantised base alone",
            remedy="name the base, with quantize, where it is used",
        )  # fmt: skip
    with _quiet():
        checkpoint.model.save_pretrained(directory)
    checkpoint.tokenizer.save_pretrained(directory)
    vision = checkpoint.model.config.vision_config
    facts = {
        "image_processor_type": "Qwen2VLImageProcessor",
        "image_mean": list(checkpoint.image_mean),
        "image_std": list(checkpoint.image_std),
        "patch_size": vision.patch_size,
        "merge_size": vision.spatial_merge_size,
        "temporal_patch_size": vision.temporal_patch_size,
    }
    write_json(directory / "preprocessor_config.json", facts)


def _quantization(quantize: Literal["nf4", "int8"], dtype: DType) -> BitsAndBytesConfig:
    """QLoRA's choice (arXiv:2305.14314, section 3): NF4, its constants quantised too, computing in a wider type.

    The tower stays whole, as is usual: it holds a small part of the weights.
    """
    try:
        import bitsandbytes  # noqa: F401
    except ImportError as error:
        raise InputError(
            "backbone.quantize", expected="bitsandbytes installed", got=error,
            remedy="pip install mmembed[quantized], or leave quantize out",
        ) from error  # fmt: skip
    if quantize == "int8":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=TOWER)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=getattr(torch, dtype),
        llm_int8_skip_modules=TOWER,
    )


def _settle_quantised(model: Any) -> None:
    """Freeze the whole base, and let it embed with the arithmetic it trains with."""
    from bitsandbytes.nn import Linear4bit

    # bitsandbytes says at every call of an 8-bit layer that it casts to float16
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
    model.requires_grad_(False)
    for layer in model.modules():
        if isinstance(layer, Linear4bit):
            # on some CPUs it would repack its weights in place when it first embeds, and could not train after that
            layer.support_avx512bf16_for_cpu = False
            # it computes in its input's type then, and peft does not round the adapter to the one given here
            layer.compute_dtype = None


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the library's own report and bar: what it would say is checked, and said, here."""
    level, bars = library_logging.get_verbosity(), library_logging.is_progress_bar_enabled()
    library_logging.set_verbosity_error()
    library_logging.disable_progress_bar()
    try:
        yield
    finally:
        library_logging.set_verbosity(level)
        if bars:
            library_logging.enable_progress_bar()


def _refuse_gaps(path: str, info: dict[str, Any]) -> None:
    missing = sorted(info["missing_keys"])
    unexpected = sorted(key for key in info["unexpected_keys"] if not key.startswith(HEAD))
    mismatched = sorted(str(entry[0]) for entry in info["mismatched_keys"])
    for problem, keys in (("missing", missing), ("unexpected", unexpected), ("of another shape", mismatched)):
        if keys:
            raise InputError(
                path, expected="exactly the weights of its config",
                got=f"{len(keys)} {problem}: {', '.join(keys[:20])}",
                remedy="use the checkpoint's own config, or an intact copy",
            )  # fmt: skip


def _read_json(path: str, name: str, where: dict[str, Any]) -> dict[str, Any]:
    found = cached_file(path, name, _raise_exceptions_for_missing_entries=False, **where)
    return dict(json.loads(Path(found).read_text(encoding="utf-8"))) if found else {}
