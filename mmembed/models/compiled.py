"""The repeated layers of a language model and of its tower, compiled (``torch.compile``) one by one.

Layers of one kind share what is compiled, so that it costs little more for many layers than for one. Compiled is the
call of a module, not the module: names of weights, and what is saved, stay as they are. Shapes are left open. Attention
inside segments, whose lengths the compiler cannot know, stays outside.
"""

import os
import shutil

import torch
from torch import nn

from mmembed.errors import InputError
from mmembed.models.backbone import Backbone
from mmembed.models.last_layer import layers_of_decoder

_COMPILERS = ("g++", "clang++", "cl")


def compile_layers(backbone: Backbone, *, but_last: bool) -> None:
    """Compile the layers, in place; what is computed moves within rounding.

    Args:
        backbone: with adapter and taps as they are to stay.
        but_last: leave the last layer of the language model as it is: one that runs at some tokens alone is entered
            twice in other ways.

    Raises:
        InputError: layers that cannot be compiled as they are set, or no compiler.
    """
    _check(backbone)
    layers = repeated_layers(backbone)
    for layer in layers[:-1] if but_last else layers:
        layer.compile(dynamic=True, recompile_limit=64)


def repeated_layers(backbone: nn.Module) -> list[nn.Module]:
    """The repeated layers of a model: what stands in a list of modules and in no other layer; the decoder's last."""
    found: list[list[nn.Module]] = []
    inside: set[nn.Module] = set()
    for module in backbone.modules():
        if isinstance(module, nn.ModuleList) and module not in inside:
            layers = [layer for layer in module if any(True for _ in layer.parameters())]
            found.append(layers)
            inside.update(below for layer in layers for below in layer.modules())
    last = [*layers_of_decoder(backbone)][-1:]
    found.sort(key=lambda layers: layers[-1:] == last)
    return [layer for layers in found for layer in layers]


def _check(backbone: Backbone) -> None:
    settings = getattr(backbone, "settings", None)
    if getattr(settings, "gradient_checkpointing", False):
        raise _refusal("gradient_checkpointing: false", "true", "take one of the two")
    if getattr(settings, "quantize", None) is not None:
        raise _refusal("weights that are not quantised", f"quantize: {settings.quantize}", "take one of the two")  # type: ignore[union-attr]
    if backbone.taps:
        # the compiler does not look again for the hooks that read them
        raise _refusal("a region encoder that reads the tower's last features", "layers of the tower", "leave it out")
    if not repeated_layers(backbone):
        raise _refusal("a model of repeated layers", type(backbone).__name__, "leave it out")
    names = (os.environ.get("CXX"), *_COMPILERS)
    if not torch.cuda.is_available() and not any(shutil.which(name) for name in names if name):
        raise _refusal("a C++ compiler on this machine", "none of CXX, " + ", ".join(_COMPILERS), "install g++")


def _refusal(expected: str, got: str, remedy: str) -> InputError:
    return InputError("speed.compile", expected=expected, got=got, remedy=remedy)
