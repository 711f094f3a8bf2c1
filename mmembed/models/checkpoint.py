"""Checkpoints in the libraries' own layout, opened strictly: tensors alone, no remote code, no weight by chance."""

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import AutoModel, BitsAndBytesConfig
from transformers.utils import logging as library_logging

from mmembed.errors import InputError
from mmembed.files import write_json
from mmembed.models.families import Family
from mmembed.models.hub import Where, find_file, in_words, read_json, where_of
from mmembed.models.released import folder_of_torch_files
from mmembed.models.settings import DType

# what a checkpoint saved with its language-model head holds beyond the base model
HEAD = "lm_head."
ADAPTER_CONFIG = "adapter_config.json"
# bytes; where torch begins what it allocates
_LINE = 64
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass
class Checkpoint:
    """A base model without its head, its tokenizer, and what ``preprocessor_config.json`` says of pictures."""

    model: Any
    tokenizer: Any
    preprocessing: dict[str, Any] = field(default_factory=dict)

    @property
    def image_mean(self) -> tuple[float, ...]:
        """Mean of the three channels, CLIP's where the checkpoint says none."""
        return tuple(self.preprocessing.get("image_mean", CLIP_MEAN))

    @property
    def image_std(self) -> tuple[float, ...]:
        """Standard deviation of the three channels."""
        return tuple(self.preprocessing.get("image_std", CLIP_STD))

    @property
    def stated_preprocessing(self) -> dict[str, Any]:
        """The same with mean and deviation stated, as it is saved."""
        return self.preprocessing | {"image_mean": list(self.image_mean), "image_std": list(self.image_std)}


def open_checkpoint(
    path: str,
    family: Family,
    *,
    revision: str | None = None,
    dtype: DType = "float32",
    attention: str = "sdpa",
    quantize: Literal["nf4", "int8"] | None = None,
    weights: bool = True,
) -> Checkpoint:
    """Open a directory or Hub repository: its safetensors, or torch's own files where it has none.

    Args:
        path: directory or Hub id.
        family: what is expected there.
        revision: commit of the Hub repository.
        dtype: type of the weights.
        attention: its kernel, as transformers names it.
        quantize: hold the language model's linear layers in 4 or 8 bits; then no weight trains but an adapter's.
        weights: load them; without, the model has shapes alone, and only its preprocessor is of use.

    Raises:
        InputError: nothing there, another family's model, files of weights that are missing or hold anything else, or
            missing or unexpected weights, which are listed; or what quantises is not installed.
    """
    how: dict[str, Any] = {}
    if quantize is not None:
        how["quantization_config"] = _quantization(quantize, dtype, family.tower)
    with in_words(path):
        where = where_of(path, revision)
        _refuse_adapter(path, where)
        # before transformers reads it, which knows no model type of released code, or would ask to run that code
        named = read_json(path, "config.json", where).get("model_type")
        if named is not None:
            family.check(named, f"{path}: model_type")
        names = dict(family.weight_names(named or ""))
        config = family.read_config(path, where)
        family.check(config.model_type, f"{path}: model_type")
        # before the weights: what is left of an interrupted download lacks those, and is never opened without the rest
        tokenizer = family.read_tokenizer(path, where)
        if not tokenizer.chat_template:
            tokenizer.chat_template = read_json(path, "chat_template.json", where).get("chat_template")
        preprocessing = family.read_preprocessing(path, where)
        how |= {"dtype": getattr(torch, dtype), "attn_implementation": attention, "trust_remote_code": False}
        with quiet():
            if weights:
                folder = folder_of_torch_files(path, where)
                model, info = AutoModel.from_pretrained(
                    path if folder is None else str(folder),
                    config=config,
                    use_safetensors=folder is None,
                    weights_only=True,
                    output_loading_info=True,
                    # a weight of another shape is reported here, and refused below by name
                    ignore_mismatched_sizes=True,
                    key_mapping=names or None,
                    **how,
                    **(where if folder is None else {}),
                )
            else:
                model, info = _shapes(config, how), {}
    if names and weights:
        # the library would save the weights by their old names, beside a config that has the new ones
        model._weight_conversions = None
    if weights:
        refuse_gaps(path, info, family.heads)
        if quantize is None:
            _align(model)
        else:
            _settle_quantised(model)
    return Checkpoint(model, tokenizer, preprocessing)


def _shapes(config: Any, how: Mapping[str, Any]) -> Any:
    """The model of a config without weights: nothing is read, and no memory taken."""
    plain = {name: value for name, value in how.items() if name != "quantization_config"}
    with torch.device("meta"):
        return AutoModel.from_config(config, **plain)


def _align(model: Any) -> None:
    """Copy float32 weights out of a file whose header ends where no processor's line begins.

    Kernels for narrow matrices choose the order of sums by the address, and the same weights made in memory would give
    other last bits. Those of smaller types do not, and such weights stay in the file until they are read: a large model
    on its way to a GPU would take as much memory of each process.
    """
    for weight in (*model.parameters(), *model.buffers()):
        if weight.dtype is torch.float32 and weight.data_ptr() % _LINE:
            weight.data = weight.data.clone()


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
    with quiet():
        checkpoint.model.save_pretrained(directory)
    checkpoint.tokenizer.save_pretrained(directory)
    if checkpoint.preprocessing:
        write_json(directory / "preprocessor_config.json", checkpoint.stated_preprocessing)


def _quantization(quantize: Literal["nf4", "int8"], dtype: DType, tower: Iterable[str]) -> BitsAndBytesConfig:
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
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=list(tower))
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=getattr(torch, dtype),
        llm_int8_skip_modules=list(tower),
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
def quiet() -> Iterator[None]:
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


def _refuse_adapter(path: str, where: Where) -> None:
    """Refuse an adapter beside the weights, or in their place: the library would put it in, and not say so."""
    if find_file(path, ADAPTER_CONFIG, where) is not None:
        raise InputError(
            path, expected="a checkpoint without an adapter in its folder", got=ADAPTER_CONFIG,
            remedy="give the adapter as adapter=, on its base",
        )  # fmt: skip


def refuse_difference(
    path: object, given: Mapping[str, Tensor], wanted: Mapping[str, Tensor], *, expected: str, remedy: str
) -> None:
    """Refuse weights that are not exactly those wanted.

    Args:
        path: names what they were read from.
        given: weights by name.
        wanted: those of the module they are for.
        expected: what they should be, in words.
        remedy: what to do.

    Raises:
        InputError: missing and unexpected weights, and those of another shape; they are listed.
    """
    differ = {
        "missing": wanted.keys() - given.keys(),
        "unexpected": given.keys() - wanted.keys(),
        "of another shape": {k for k in wanted.keys() & given.keys() if wanted[k].shape != given[k].shape},
    }
    if any(differ.values()):
        listed = [f"{len(keys)} {what}: {', '.join(sorted(keys)[:8])}" for what, keys in differ.items() if keys]
        raise InputError(path, expected=expected, got="; ".join(listed), remedy=remedy)


def refuse_gaps(path: str, info: dict[str, Any], heads: tuple[str, ...]) -> None:
    """Refuse a checkpoint that does not hold exactly its model's weights.

    Args:
        path: names it in the error.
        info: ``missing_keys``, ``unexpected_keys`` and ``mismatched_keys`` as transformers reports them.
        heads: beginnings of names that may be missing or left over.

    Raises:
        InputError: the first 20 names are listed.
    """
    missing = sorted(key for key in info["missing_keys"] if not key.startswith(heads))
    unexpected = sorted(key for key in info["unexpected_keys"] if not key.startswith((HEAD, *heads)))
    mismatched = sorted(str(entry[0]) for entry in info["mismatched_keys"])
    for problem, keys in (("missing", missing), ("unexpected", unexpected), ("of another shape", mismatched)):
        if keys:
            raise InputError(
                path, expected="exactly the weights of its config",
                got=f"{len(keys)} {problem}: {', '.join(keys[:20])}",
                remedy="use the checkpoint's own config, or an intact copy",
            )  # fmt: skip
