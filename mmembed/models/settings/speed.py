"""Settings of what is computed faster. No torch here."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Speed:
    """What is computed faster, to the same vectors within rounding unless it says more; each can be turned off."""

    packing: Literal["auto", "on", "off"] = "auto"
    """Rows pass the language model one behind another, without padding. ``auto`` does so where there is a kernel for
    rows of different lengths, on a GPU in half precision; ``on`` everywhere, with a kernel call for each length."""
    last_layer: Literal["auto", "pooled", "all"] = "auto"
    """Where the last layer of the language model is computed to its end: only at the token that the pooler reads, or
    at ``all``. ``auto`` is the former where it can be done; ``pooled`` is an error where it cannot."""
    patch_products: bool = True
    """The towers of Qwen-VL embed patches by products of matrices, a still picture's of one frame; else by the
    library's convolution over two."""
    compile: bool = False
    """Compile the layers of language model and tower (``torch.compile``)."""
    autocast: Literal["bfloat16"] | None = None
    """Multiply matrices in bfloat16 when encoding, on a CPU too; the weights keep their type. Moves a vector by about
    1e-2. Training has ``precision`` of the stage."""
    sort: bool = True
    """Rows of like length pass the model together when encoding; else rows in the order given."""
    deduplicate: bool = True
    """Equal rows, and equal media of different rows, are encoded once in a call."""
