"""LoRA and DoRA through peft, put into the base model in place; names of any age are read, none is lost.

peft's own ``from_pretrained`` loads *nothing* from an adapter saved before transformers renamed its modules, with a
warning only; here the names are translated and every missing or unexpected one is an error.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from peft import LoraConfig, PeftConfig, get_peft_model_state_dict, inject_adapter_in_model, set_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import AuxiliaryTrainingWrapper, set_additional_trainable_modules
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mmembed.errors import InputError
from mmembed.models.checkpoint import ADAPTER_CONFIG, refuse_difference
from mmembed.models.hub import find_file, in_words
from mmembed.models.released import read_tensors
from mmembed.models.repository import snapshot
from mmembed.models.settings import Lora
from mmembed.models.special_tokens import embedding_name

WEIGHTS = "adapter_model.safetensors"
TORCH_WEIGHTS = "adapter_model.bin"
"""Where an adapter of older peft keeps them."""
WRAPPER = "base_model.model."
"""What peft puts before the names of a model's modules."""


def add_lora(model: nn.Module, lora: Lora, tokens: Sequence[int] = ()) -> None:
    """Put a fresh adapter into ``model``; from then on only the adapter trains.

    Args:
        model: the base model.
        lora: the adapter.
        tokens: ids whose rows of the embedding table are part of it.

    Raises:
        InputError: none of the targets names a layer of the model.
    """
    _refuse_strangers(model, lora)
    config = LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        use_dora=lora.dora,
        target_modules=list(lora.targets),
        init_lora_weights="gaussian",
        trainable_token_indices={embedding_name(model): list(tokens)} if tokens else None,
    )
    try:
        _inject(config, model)
    except ValueError as error:
        raise InputError(
            "lora.targets", expected="suffixes of layers that can carry an adapter", got=lora.targets, remedy=str(error)
        ) from error


def _refuse_strangers(model: nn.Module, lora: Lora) -> None:
    """Refuse targets of which none names a layer; one list may serve several families, so some may not."""
    modules = dict(model.named_modules())
    if not any(f".{name}".endswith(f".{target}") for target in lora.targets for name in modules):
        known = sorted({name.rpartition(".")[2] for name, module in modules.items() if isinstance(module, nn.Linear)})
        raise InputError(
            "lora.targets", expected="suffixes of linear layers of the model", got=", ".join(lora.targets),
            remedy=f"its linear layers are {', '.join(known)}",
        )  # fmt: skip


def load_adapter(
    model: nn.Module, source: str, renames: Sequence[tuple[str, str]], revision: str | None = None
) -> None:
    """Load a trained adapter into ``model``.

    Args:
        model: the base model.
        source: directory or Hub id.
        renames: patterns that translate older module names, applied in order after the wrapper's prefix is dropped.
        revision: commit of the Hub repository.

    Raises:
        InputError: a missing or unexpected weight, or one of another shape; they are listed.
    """
    with in_words(source, "an adapter, adapter_config.json and its weights, of this base", "check the path or Hub id"):
        directory = Path(source)
        if not directory.is_dir():
            if find_file(source, ADAPTER_CONFIG, {"revision": revision}) is None:
                raise InputError(
                    source, expected=f"an adapter, {ADAPTER_CONFIG} and its weights", got=f"no {ADAPTER_CONFIG}",
                    remedy="check the name and its revision",
                )  # fmt: skip
            directory = snapshot(source, revision, [ADAPTER_CONFIG, WEIGHTS, TORCH_WEIGHTS])
        file, weights = _read_weights(directory)
        config = PeftConfig.from_pretrained(str(directory))
        state = {rename(key, renames): value for key, value in weights.items()}
        config.inference_mode = False
        if isinstance(config.target_modules, str):
            # a pattern of names that may be older than the module's
            config.target_modules = {key.split(".lora_")[0] for key in state}
        _settle_rows(model, config, renames, directory)
        _inject(config, model)
    expected: dict[str, Tensor] = get_peft_model_state_dict(model, save_embedding_layers=False)
    refuse_difference(
        file,
        state,
        expected,
        expected="exactly the weights its adapter_config.json names",
        remedy="check that base model and adapter belong together",
    )
    set_peft_model_state_dict(model, state)


def _read_weights(directory: Path) -> tuple[Path, dict[str, Tensor]]:
    """The file of an adapter's weights and what it holds: safetensors, or torch's own where there are none."""
    if (directory / WEIGHTS).is_file():
        return directory / WEIGHTS, load_file(directory / WEIGHTS)
    file = directory / TORCH_WEIGHTS
    if not file.is_file():
        is_run = (directory / "adapter" / WEIGHTS).is_file()
        raise InputError(
            directory, expected=f"{WEIGHTS} or {TORCH_WEIGHTS}", got=sorted(p.name for p in directory.iterdir()),
            remedy=f"name {directory / 'adapter'}" if is_run else "check the path or Hub id",
        )  # fmt: skip
    return file, read_tensors(file)


def merge_adapter(model: Any) -> None:
    """Fold the adapter into the weights of ``model`` and take its layers out; the whole model trains from then on.

    Raises:
        InputError: there is no adapter, or its base is quantised.
    """
    if not hasattr(model, "peft_config"):
        raise InputError("merge_adapter", expected="a model with an adapter", got="none", remedy="save it as it is")
    if getattr(model, "is_quantized", False):
        raise InputError(
            "merge_adapter", expected="a base in whole weights", got="a quantised one",
            remedy="open the adapter on the base without quantize",
        )  # fmt: skip
    for name, layer in list(adapted_layers(model)):
        model.set_submodule(name, whole_layer(layer))
    del model.peft_config


def whole_layer(layer: Any) -> nn.Module:
    """The layer with its adapter folded in; ``layer`` itself is not to be used any more."""
    if isinstance(layer, AuxiliaryTrainingWrapper):
        whole: nn.Module = layer.unload_and_optionally_merge_module(merge=True, safe_merge=True, adapter_names=None)
        return whole
    layer.merge(safe_merge=True)
    base: nn.Module = layer.get_base_layer()
    return base


def save_adapter(model: Any, directory: Path, base: str, head: str) -> None:
    """Write the adapter under the names peft gives it on the full model, so that other libraries load it.

    Args:
        model: the base model with its adapter.
        directory: where to.
        base: what the base model is opened from.
        head: what the full model calls the base model, and a dot; empty where they are one.
    """
    directory.mkdir(parents=True, exist_ok=True)
    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    state = {WRAPPER + head + key: value.contiguous().cpu() for key, value in state.items()}
    save_file(state, directory / WEIGHTS)
    config = model.peft_config["default"]
    config.base_model_name_or_path = base
    config.save_pretrained(str(directory))


def _inject(config: Any, model: Any) -> None:
    """Put the adapter's layers in, and its rows of the embedding table, if it has any."""
    rows, config.trainable_token_indices = config.trainable_token_indices, None
    inject_adapter_in_model(config, model)
    if rows:
        config.trainable_token_indices = rows
        with _without_namesakes(model, next(iter(rows))):
            set_additional_trainable_modules(model, config, {"tie_word_embeddings": False}, "default")


@contextmanager
def _without_namesakes(model: nn.Module, name: str) -> Iterator[None]:
    """Take out the modules whose names end as another's does: peft would take ``vision_embed_tokens`` for a table."""
    hidden = {other: module for other, module in model.named_modules() if other.endswith(name) and other != name}
    for other in hidden:
        parent, _, child = other.rpartition(".")
        setattr(model.get_submodule(parent), child, None)
    try:
        yield
    finally:
        for other, module in hidden.items():
            parent, _, child = other.rpartition(".")
            setattr(model.get_submodule(parent), child, module)


def adapted_layers(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """The outermost of the layers that peft put in, by name."""
    last = None
    for name, module in model.named_modules():
        inside = last is not None and name.startswith(f"{last}.")
        if not inside and isinstance(module, BaseTunerLayer | AuxiliaryTrainingWrapper):
            last = name
            yield name, module


def _settle_rows(model: Any, config: Any, renames: Sequence[tuple[str, str]], directory: Path) -> None:
    """Name the embedding table whose rows an adapter trained as ``model`` does, and see that it has these rows."""
    rows = config.trainable_token_indices
    if not rows:
        return
    rows = rows if isinstance(rows, dict) else {embedding_name(model): rows}
    config.trainable_token_indices = {rename(f"{WRAPPER}{name}", renames): ids for name, ids in rows.items()}
    number = model.get_input_embeddings().num_embeddings
    highest = max(i for ids in rows.values() for i in ids)
    if highest >= number:
        raise InputError(
            directory, expected=f"rows of an embedding table of {number}", got=f"row {highest}",
            remedy="set special_tokens to the tokens it was trained with",
        )  # fmt: skip


def rename(key: str, renames: Sequence[tuple[str, str]]) -> str:
    """A weight's name in the installed library's own naming."""
    key = key.removeprefix(WRAPPER)
    for pattern, replacement in renames:
        key = re.sub(pattern, replacement, key)
    return key
