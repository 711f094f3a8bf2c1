"""Weights that were released as torch's own files: tensors and plain values are read of them, and nothing else."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, WEIGHTS_INDEX_NAME, WEIGHTS_NAME

from mmembed.errors import InputError
from mmembed.models.hub import Where, find_file, in_words, read_json

_BY_NAME = "weights by their names and nothing else"
_AGAIN = "download it again, or save it as safetensors"


def read_torch_file(path: str | Path, expected: str, remedy: str, *, device: str = "cpu") -> Any:
    """What a ``.pt``, ``.pth`` or ``.bin`` file holds.

    Args:
        path: of the file.
        expected: what it should be, in words.
        remedy: what to do otherwise.
        device: where its tensors go; ``meta`` for their shapes alone.

    Raises:
        InputError: it cannot be read, or holds more than tensors and plain values.
    """
    with in_words(path, expected, remedy):
        try:
            return torch.load(path, map_location=device, weights_only=True)
        except OSError:
            raise
        except Exception as error:
            # torch raises several of its own and of others, and tells how to run what is in the file
            raise InputError(
                path, expected=expected, got="no whole file of torch's, or objects besides tensors and plain values",
                remedy=remedy,
            ) from error  # fmt: skip


def read_tensors(file: Path, *, device: str = "cpu") -> dict[str, Tensor]:
    """The tensors, by their names, that a file of torch's holds.

    Args:
        file: to read.
        device: where they go; ``meta`` for their shapes alone.

    Raises:
        InputError: it cannot be read, or holds anything else.
    """
    values = read_torch_file(file, _BY_NAME, _AGAIN, device=device)
    if not isinstance(values, dict):
        raise InputError(file, expected=_BY_NAME, got=type(values).__name__, remedy=_AGAIN)
    others = [str(key) for key, value in values.items() if not isinstance(value, Tensor)]
    if others:
        raise InputError(file, expected=_BY_NAME, got=f"others: {', '.join(others[:8])}", remedy=_AGAIN)
    return values


def folder_of_torch_files(path: str, where: Where) -> Path | None:
    """The folder, on this machine, of a checkpoint that has no safetensors but torch's own files.

    transformers finds them in a Hub repository, too, but then has an outside service convert them.

    Args:
        path: directory or Hub id.
        where: which revision.

    Returns:
        None for a checkpoint with safetensors, or without any weights.

    Raises:
        InputError: a file is missing, or holds anything but tensors by their names.
    """
    if any(find_file(path, name, where) for name in (SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME)):
        return None
    shards = read_json(path, WEIGHTS_INDEX_NAME, where).get("weight_map", {})
    names = [WEIGHTS_NAME] if find_file(path, WEIGHTS_NAME, where) else sorted(set(shards.values()))
    files = [_tensors_alone(path, name, where) for name in names]
    return files[0].parent if files else None


def _tensors_alone(path: str, name: str, where: Where) -> Path:
    """A file of a checkpoint, once it is known to hold tensors by their names."""
    file = find_file(path, name, where)
    if file is None:
        raise InputError(f"{path}: {name}", expected=_BY_NAME, got="no such file", remedy=_AGAIN)
    read_tensors(file, device="meta")
    return file
