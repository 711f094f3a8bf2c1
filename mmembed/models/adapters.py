"""LoRA and DoRA through peft, put into the base model in place; names of any age are read, none is lost.

peft's own ``from_pretrained`` loads *nothing* from an adapter saved before transformers renamed its modules, with a
warning only; here the names are translated and every missing or unexpected one is an error.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from peft import LoraConfig, PeftConfig, get_peft_model_state_dict, inject_adapter_in_model, set_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mmembed.errors import InputError
from mmembed.models.settings import Lora

WEIGHTS = "adapter_model.safetensors"
# the wrapper's prefix, then the prefix of a model with its head: the names every library expects
PREFIX = "base_model.model.model."


def add_lora(model: nn.Module, lora: Lora) -> None:
    """Put a fresh adapter into ``model``; from then on only the adapter trains.

    Raises:
        InputError: none of the targets names a layer of the model.
    """
    config = LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        use_dora=lora.dora,
        target_modules=list(lora.targets),
        init_lora_weights="gaussian",
    )
    try:
        inject_adapter_in_model(config, model)
    except ValueError as error:
        raise InputError(
            "lora.targets", expected="suffixes of linear layers", got=lora.targets, remedy=str(error)
        ) from error


def load_adapter(model: nn.Module, source: str, renames: Sequence[tuple[str, str]]) -> None:
    """Load a trained adapter into ``model``.

    Args:
        model: the base model.
        source: directory or Hub id.
        renames: patterns that translate older module names, applied in order after the wrapper's prefix is dropped.

    Raises:
        InputError: a missing or unexpected weight, or one of another shape; they are listed.
    """
    directory = Path(source)
    if not directory.is_dir():
        directory = Path(snapshot_download(source, allow_patterns=["adapter_config.json", WEIGHTS]))
    if not (directory / WEIGHTS).is_file():
        raise InputError(
            directory,
            expected=WEIGHTS,
            got=sorted(p.name for p in directory.iterdir()),
            remedy="pickled adapters are refused",
        )
    config = PeftConfig.from_pretrained(str(directory))
    config.inference_mode = False
    inject_adapter_in_model(config, model)
    state = {rename(key, renames): value for key, value in load_file(directory / WEIGHTS).items()}
    expected: dict[str, Tensor] = get_peft_model_state_dict(model, save_embedding_layers=False)
    missing, unexpected = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
    reshaped = sorted(key for key in expected.keys() & state.keys() if expected[key].shape != state[key].shape)
    if missing or unexpected or reshaped:
        raise InputError(
            directory / WEIGHTS, expected="exactly the weights its adapter_config.json names",
            got=f"{len(missing)} missing: {', '.join(missing[:8])}; "
            f"{len(unexpected)} unexpected: {', '.join(unexpected[:8])}; "
            f"{len(reshaped)} of another shape: {', '.join(reshaped[:8])}",
            remedy="check that base model and adapter belong together",
        )  # fmt: skip
    set_peft_model_state_dict(model, state)


def save_adapter(model: Any, directory: Path, base: str) -> None:
    """Write the adapter under the names peft gives it on the full model, so that other libraries load it."""
    directory.mkdir(parents=True, exist_ok=True)
    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    state = {PREFIX + key: value.contiguous().cpu() for key, value in state.items()}
    save_file(state, directory / WEIGHTS)
    config = model.peft_config["default"]
    config.base_model_name_or_path = base
    config.save_pretrained(str(directory))


def rename(key: str, renames: Sequence[tuple[str, str]]) -> str:
    """A weight's name in the installed library's own naming."""
    key = key.removeprefix("base_model.model.")
    for pattern, replacement in renames:
        key = re.sub(pattern, replacement, key)
    return key
