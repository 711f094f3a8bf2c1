"""Single precision that is one: cuDNN rounds the inputs of float32 convolutions to TF32 unless told otherwise."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def whole_convolutions() -> Iterator[None]:
    """Let float32 convolutions inside the block compute in float32, which is torch's default for products of matrices.

    The patch embedding of every tower is a convolution. In TF32 the embedding of a picture moved by 5e-4 on an H200,
    where texts agreed with the CPU to 5e-7. Smaller types are not touched. Products of matrices are as the caller set
    them: ``torch.set_float32_matmul_precision("high")`` rounds their inputs to TF32, too, and moves vectors.
    """
    convolutions = torch.backends.cudnn.conv  # type: ignore[attr-defined]  # torch 2.9 and later
    before = convolutions.fp32_precision
    convolutions.fp32_precision = "ieee"
    try:
        yield
    finally:
        convolutions.fp32_precision = before
