"""Weights that were released as torch's own files: tensors and plain values are read of them, and nothing else."""

from pathlib import Path
from typing import Any

import torch

from mmembed.models.hub import in_words


def read_torch_file(path: str | Path, expected: str, remedy: str) -> Any:
    """What a ``.pt`` or ``.pth`` file holds, on the CPU.

    Args:
        path: of the file.
        expected: what it should be, in words.
        remedy: what to do otherwise.

    Raises:
        InputError: it cannot be read, or holds more than tensors and plain values.
    """
    # torch raises an error of a library that is not imported here, and several of its own
    with in_words(path, expected, remedy, also=(Exception,)):
        return torch.load(path, map_location="cpu", weights_only=True)
