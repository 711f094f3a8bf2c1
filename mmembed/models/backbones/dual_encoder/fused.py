"""Torch's fused attention, which open_clip's towers are made of, carries no adapter.

It never runs its last layer, so that an adapter there does nothing. Around the whole of it, peft adds the update to the
frozen weights at every forward and takes it off again, which leaves them a little different each time.
"""

from collections.abc import Collection

from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from mmembed.errors import InputError


def refuse_fused(model: nn.Module, targets: Collection[str]) -> None:
    """Refuse an adapter on fused attention.

    Args:
        model: without an adapter.
        targets: suffixes of the layers that one would be put on.

    Raises:
        InputError: the first such layer is named.
    """
    for name, module in model.named_modules():
        inside = [name, f"{name}.out_proj"] if isinstance(module, nn.MultiheadAttention) else []
        for layer in inside:
            if any(f".{layer}".endswith(f".{target}") for target in targets):
                _refuse(layer)


def refuse_wrapped(model: nn.Module) -> None:
    """Refuse a loaded adapter around fused attention, or on the layer that it never runs.

    Raises:
        InputError: the first such layer is named.
    """
    for name, module in model.named_modules():
        if not isinstance(module, nn.MultiheadAttention):
            continue
        if name.endswith(".base_layer"):
            _refuse(name.removesuffix(".base_layer"))
        if isinstance(module.out_proj, BaseTunerLayer):
            _refuse(f"{name}.out_proj")


def _refuse(layer: str) -> None:
    raise InputError(
        "lora.targets", expected="linear layers that run by themselves", got=f"{layer}, a fused attention",
        remedy="name the layers beside it, e.g. [c_fc, c_proj] in open_clip's towers",
    )  # fmt: skip
