"""Checkpoints that are whole or refused: the state of a stage as a folder, its bytes known before any is read.

``step-00000500/`` holds ``weights.safetensors`` (the module's weights), ``state.pt`` (everything else: optimiser,
schedule, progress, callbacks) and ``checkpoint.json``, which names the bytes of the other two and its own. The folder
is written beside its name and takes it at the end, so a killed run leaves a checkpoint or none.
"""

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import CheckpointIO
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.serialization import get_unsafe_globals_in_checkpoint

from mmembed import __version__
from mmembed.errors import InputError
from mmembed.files import bytes_fingerprint, file_fingerprint, whole_directory
from mmembed.models.identity import weights_fingerprint

WEIGHTS, STATE, MANIFEST = "weights.safetensors", "state.pt", "checkpoint.json"
FORMAT = 1
_FILES = (MANIFEST, WEIGHTS, STATE)
_SEAL = "fingerprint"
_NAME = re.compile(r"step-(\d{8,})")


class CheckpointFiles(CheckpointIO):  # type: ignore[misc]
    """Lightning's checkpoints as folders; ``Trainer(plugins=[CheckpointFiles()])``."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Path | str, storage_options: Any = None) -> None:
        """Write a checkpoint; ``path`` is replaced by a whole one, or stays as it was.

        Args:
            checkpoint: Lightning's: ``state_dict`` (tensors by name), ``global_step``, and anything else of tensors and
                plain values. ``facts``, if there are any, are JSON values that a resumed stage must share.
            path: the folder.
            storage_options: none are known.

        Raises:
            OSError: the disk is full or broken.
            InputError: something that could not be opened again without running code.
        """
        if storage_options is not None:
            raise TypeError("a checkpoint is a folder on a local disk: there are no storage_options")
        state = {name: value for name, value in checkpoint.items() if name != "state_dict"}
        with whole_directory(path) as part:
            _write_weights(part / WEIGHTS, checkpoint["state_dict"])
            _write_state(part / STATE, state)
            manifest = {
                "format": FORMAT,
                "mmembed": __version__,
                "step": checkpoint["global_step"],
                "facts": checkpoint.get("facts", {}),
                "files": {name: _bytes_of(part / name) for name in (WEIGHTS, STATE)},
            }
            (part / MANIFEST).write_bytes(_sealed(manifest))

    def load_checkpoint(
        self, path: Path | str, map_location: str | torch.device | None = None, weights_only: bool | None = True
    ) -> dict[str, Any]:
        """What was saved, every tensor bit for bit, after every byte was checked.

        Args:
            path: the folder.
            map_location: where the tensors go; None is the CPU, wherever they were saved from.
            weights_only: true, whatever is asked: nothing but tensors and plain values is ever opened.

        Raises:
            InputError: as :func:`verify`.
        """
        path = Path(path)
        verify(path)
        device = "cpu" if map_location is None else str(map_location)
        checkpoint: dict[str, Any] = torch.load(path / STATE, map_location=device, weights_only=True)
        return checkpoint | {"state_dict": load_file(path / WEIGHTS, device=device)}

    def remove_checkpoint(self, path: Path | str) -> None:
        """Remove a checkpoint at once as seen from outside: half of one never stands under its name."""
        path = Path(path)
        if path.exists():
            # an empty folder may be renamed onto
            gone = tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
            shutil.rmtree(path.rename(gone))


def checkpoint_path(directory: Path, step: int) -> Path:
    """Folder of the checkpoint after ``step`` optimiser steps."""
    return directory / f"step-{step:08d}"


def list_checkpoints(directory: Path) -> list[Path]:
    """The checkpoints of a folder by step, oldest first; what a killed write or removal left is not among them."""
    if not directory.is_dir():
        return []
    return sorted((p for p in directory.iterdir() if _NAME.fullmatch(p.name) and p.is_dir()), key=_step)


def latest(directory: Path) -> Path | None:
    """The checkpoint with the most steps."""
    return next(reversed(list_checkpoints(directory)), None)


def clean_leftovers(directory: Path) -> None:
    """Remove what a killed write or removal left; a checkpoint that was about to be replaced gets its name back."""
    for old in directory.glob(".*.old"):
        name = old.name.removeprefix(".").rsplit(".", 2)[0]
        if not (directory / name).exists():
            old.rename(directory / name)
    for suffix in ("part", "old"):
        for left in directory.glob(f".*.{suffix}"):
            shutil.rmtree(left)


def prune(directory: Path, keep: int, keep_every: int | None = None) -> None:
    """Remove the checkpoints that are older than the newest ``keep``.

    One whose files have not the sizes they were written with does not count as one of those, so a damaged checkpoint
    never costs a good one.

    Args:
        directory: of the checkpoints.
        keep: how many to keep; the one written last always is, also where older steps were gone back to.
        keep_every: those whose step is a multiple of it are kept too.
    """
    found = list_checkpoints(directory)
    newest = [path for path in found if _is_whole(path, contents=False)][-max(keep, 1) :]
    if not newest:
        return
    written_last = max(found, key=lambda path: (path.stat().st_mtime_ns, _step(path)))
    for path in found[: found.index(newest[0])]:
        marked = keep_every is not None and _step(path) % keep_every == 0
        if path != written_last and not marked:
            CheckpointFiles().remove_checkpoint(path)


def verify(path: Path) -> dict[str, Any]:
    """The facts a checkpoint was saved with, after every byte of it was compared with what was written.

    Raises:
        InputError: a file is missing, too many, cut or changed, or of another format; the newest checkpoint beside it
            that is whole is named.
    """
    try:
        facts: dict[str, Any] = _checked(path)["facts"]
    except InputError as defect:
        raise InputError(defect.where, expected=defect.expected, got=defect.got, remedy=_remedy(path)) from None
    return facts


def check_facts(found: Mapping[str, Any], expected: Mapping[str, Any], path: Path) -> None:
    """Refuse a checkpoint of another run.

    Args:
        found: what :func:`verify` gave.
        expected: of the run at hand; facts that only the checkpoint has are not compared.
        path: the checkpoint, to be named.

    Raises:
        InputError: facts differ; each is named with both values.
    """
    # as they read once written: tuples are lists there
    wanted = json.loads(json.dumps(dict(expected)))
    differ = [name for name, value in wanted.items() if name not in found or found[name] != value]
    if differ:
        raise InputError(
            f"{path}: {', '.join(differ)}", expected=", ".join(f"{name} {wanted[name]}" for name in differ),
            got=", ".join(f"{name} {found.get(name, 'not given')}" for name in differ),
            remedy="resume with the recipe, data and weights it was made with, or begin again in another folder",
        )  # fmt: skip


def base_fingerprint(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """Names the weights that do not train, which a checkpoint leaves out, by their names, shapes, types and bytes.

    One tensor at a time is brought to the CPU and hashed, in the order of the names.
    """
    return weights_fingerprint(dict(tensors))


def _step(path: Path) -> int:
    return int(path.name.removeprefix("step-"))


def _write_weights(path: Path, weights: Mapping[str, Tensor]) -> None:
    own: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in weights.items():
        own[name] = tensor.detach().cpu().contiguous()
        memory = own[name].untyped_storage().data_ptr()
        if memory in seen:
            # safetensors refuses tensors that share memory
            own[name] = own[name].clone()
        seen.add(memory)
    with _disk_errors(path):
        save_file(own, path)


def _write_state(path: Path, state: Mapping[str, Any]) -> None:
    # to an open file, because torch hides what the disk says where it opens the file itself
    with _disk_errors(path), path.open("wb") as file:
        torch.save(state, file)
    # noticed now, not when the state is needed
    if unsafe := get_unsafe_globals_in_checkpoint(path):
        raise InputError(
            path.name, expected="tensors and plain values", got=", ".join(sorted(unsafe)),
            remedy="let state_dict and on_save_checkpoint give nothing else",
        )  # fmt: skip


@contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    """Give what the disk says as the OSError it is; safetensors and torch wrap it in errors of their own."""
    try:
        yield
    except (SafetensorError, RuntimeError) as error:
        number = _os_error_number(error)
        if number is None:
            raise
        raise OSError(number, os.strerror(number), str(path)) from error


def _os_error_number(error: BaseException | None) -> int | None:
    while error is not None:
        if isinstance(error, OSError):
            return error.errno
        # safetensors tells it in words only
        if told := re.search(r"\(os error (\d+)\)", str(error)):
            return int(told[1])
        error = error.__context__
    return None


def _bytes_of(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "fingerprint": file_fingerprint(path)}


def _sealed(manifest: Mapping[str, Any]) -> bytes:
    """The manifest as JSON that ends with the fingerprint of what stands before it."""
    seal = bytes_fingerprint(json.dumps(manifest).encode())
    return (json.dumps({**manifest, _SEAL: seal}, indent=1) + "\n").encode()


def _checked(path: Path, *, contents: bool = True) -> dict[str, Any]:
    """The manifest of a checkpoint that is whole; without ``contents`` only the sizes of its files are compared."""
    _check_names(path)
    manifest = _manifest(path / MANIFEST)
    for name, written in manifest["files"].items():
        _check_file(path / name, written, contents=contents)
    return manifest


def _check_names(path: Path) -> None:
    if not path.is_dir():
        raise _defect(path, "a folder", _kind(path))
    for name in _FILES:
        if not (path / name).is_file():
            raise _defect(path / name, "a file", _kind(path / name))
    # hidden files are the system's, e.g. of a network disk
    extra = sorted(file.name for file in path.iterdir() if file.name not in _FILES and not file.name.startswith("."))
    if extra:
        raise _defect(path / extra[0], f"only {', '.join(_FILES)}", "another file")


def _check_file(path: Path, written: Mapping[str, Any], *, contents: bool) -> None:
    size = path.stat().st_size
    if size != written["bytes"]:
        raise _defect(path, f"{written['bytes']} bytes", f"{size} bytes")
    if contents and (found := file_fingerprint(path)) != written["fingerprint"]:
        raise _defect(path, f"bytes with the fingerprint {written['fingerprint']}", found)


def _manifest(path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    try:
        manifest: dict[str, Any] = dict(json.loads(data))
    except (ValueError, TypeError) as error:
        raise _defect(path, "JSON", f"{len(data)} bytes that are not ({error})") from error
    if manifest.get("format") != FORMAT:
        writer = manifest.get("mmembed", "an unknown version")
        raise _defect(path, f"format {FORMAT}", f"format {manifest.get('format')}, written by mmembed {writer}")
    seal = manifest.pop(_SEAL, None)
    if _sealed(manifest) != data:
        raise _defect(path, f"text with the fingerprint {seal}", "text that was changed")
    return manifest


def _is_whole(path: Path, *, contents: bool = True) -> bool:
    try:
        _checked(path, contents=contents)
    except InputError:
        return False
    return True


def _defect(where: Path, expected: str, got: str) -> InputError:
    return InputError(where, expected=expected, got=got, remedy="remove this checkpoint")


def _kind(path: Path) -> str:
    if path.is_dir():
        return "a folder"
    return "a file" if path.exists() else "nothing there"


def _remedy(path: Path) -> str:
    others = (other for other in reversed(list_checkpoints(path.parent)) if other.name != path.name)
    good = next((other for other in others if _is_whole(other)), None)
    if good is None:
        return "no checkpoint beside it is whole: remove this one and begin again"
    return f"the last good one is {good.name}; go on with --resume {good}, or remove this one"
