"""Features of a frozen tower kept on disk, one file for each medium, found by what made them.

    DIRECTORY/SPACE/space.json             what the features of a space depend on besides the medium, by name
    DIRECTORY/SPACE/NA/NAME.safetensors    map, deep-stack layers and taps of the medium of that fingerprint
    DIRECTORY/.feature_bytes               bytes given out to those who write

A *space* is one tower under one set of settings (see :func:`mmembed.models.identity.tower_identity`). Any number of
processes may read and write at once: files appear whole or not at all, and two that write the same write equal bytes.
A store saves work: that a file cannot be read or written is told, and costs no more than computing it again.
"""

import json
import logging
import os
import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from mmembed.errors import InputError
from mmembed.files import fingerprint, whole_file, write_json
from mmembed.models.disk_room import DiskRoom

logger = logging.getLogger(__name__)

SPACE_FILE, SUFFIX = "space.json", ".safetensors"
_CHECK = "crc32"


@dataclass(frozen=True)
class MediumFeatures:
    """What a tower gives for one medium; see :class:`mmembed.models.sequence.Features`.

    Args:
        map: ``[v, D]``.
        layers: the same for each extra layer fed into the language model.
        taps: ``[v, C]`` for each layer that a region encoder asked for.
    """

    map: Tensor
    layers: tuple[Tensor, ...] = ()
    taps: tuple[Tensor, ...] = ()

    @property
    def nbytes(self) -> int:
        """Bytes of its numbers."""
        return sum(tensor.nbytes for tensor in self.named().values())

    def named(self) -> dict[str, Tensor]:
        """Its tensors by name."""
        parts = {"layers": self.layers, "taps": self.taps}
        return {"map": self.map} | {f"{part}.{i}": t for part, of in parts.items() for i, t in enumerate(of)}

    @classmethod
    def of_named(cls, tensors: Mapping[str, Tensor]) -> "MediumFeatures":
        """The inverse of :meth:`named`.

        Raises:
            KeyError: there is no map.
        """
        layers, taps = (
            tuple(tensors[f"{part}.{i}"] for i in range(sum(name.startswith(f"{part}.") for name in tensors)))
            for part in ("layers", "taps")
        )
        return cls(tensors["map"], layers, taps)

    def alone(self) -> "MediumFeatures":
        """Itself in memory of its own: a part of a batch's features keeps all of them."""
        return self.of_named({name: tensor.clone() for name, tensor in self.named().items()})

    def to(self, device: torch.device) -> "MediumFeatures":
        """Itself on ``device``; on its way to a GPU the next file is read already."""
        return self.of_named({name: _moved(tensor, device) for name, tensor in self.named().items()})


class FeatureStore:
    """The features of one tower, in a folder that other towers may share.

    Args:
        directory: the folder, made when something is first written.
        parts: all that the features depend on besides the medium, by name.
        max_bytes: of the files of all spaces in the folder; those used least lately go first. A bound below what an
            epoch reads keeps little of use: what comes next is what went.
    """

    def __init__(self, directory: Path | str, parts: Mapping[str, str], *, max_bytes: int) -> None:
        if max_bytes < 1:
            raise InputError("features", expected="room for at least 1 byte", got=max_bytes, remedy="leave it out")
        self.parts = dict(parts)
        self.directory = Path(directory) / fingerprint(json.dumps(self.parts, sort_keys=True))
        self._room = DiskRoom(Path(directory), max_bytes)
        self._writes = True
        self._told: set[str] = set()

    def path(self, name: str) -> Path:
        """Where the features of the medium of this fingerprint are, or would be."""
        return self.directory / name[:2] / f"{name}{SUFFIX}"

    def take(self, name: str) -> MediumFeatures | None:
        """The features of the medium of this fingerprint, on the CPU, as they were computed to the bit; None without.

        A damaged file is as none, and told.
        """
        path = self.path(name)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            self._tell_once("read", f"{path}: {error}; features that cannot be read are computed")
            return None
        # another user's file may be read, but not marked as used
        with suppress(OSError):
            os.utime(path)
        try:
            return _unpacked(data)
        except (SafetensorError, ValueError, KeyError) as error:
            logger.warning("%s: damaged (%s); its features are computed again and written anew", path, error)
            return None

    def put(self, name: str, features: MediumFeatures) -> None:
        """Write the features of a medium, in the type they have; once the disk takes no more, nothing is written."""
        if not self._writes:
            return
        data = _packed(features)
        try:
            if not self._room.reserve(len(data)):
                self._tell_once(
                    "large", f"{self.directory}: {len(data)} bytes of one medium are over the bound of "
                    f"{self._room.max_bytes}; the features of such media are computed in each epoch",
                )  # fmt: skip
                return
            if not (self.directory / SPACE_FILE).is_file():
                write_json(self.directory / SPACE_FILE, self.parts)
            with whole_file(self.path(name)) as part:
                part.write_bytes(data)
        except OSError as error:
            self._writes = False
            self._tell_once("write", f"{self.directory}: {error}; no more features are kept, all goes on without")

    def _tell_once(self, kind: str, message: str) -> None:
        if kind not in self._told:
            self._told.add(kind)
            logger.warning(message)


def _moved(tensor: Tensor, device: torch.device) -> Tensor:
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def _packed(features: MediumFeatures) -> bytes:
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in features.named().items()}
    whole: bytes = save(tensors | {_CHECK: torch.tensor(_crc(tensors))})
    return whole


def _unpacked(data: bytes) -> MediumFeatures:
    tensors = load(data)
    check = int(tensors.pop(_CHECK))
    if check != _crc(tensors):
        raise ValueError("bytes that are not those written")
    return MediumFeatures.of_named(tensors)


def _crc(tensors: Mapping[str, Tensor]) -> int:
    """A check sum of names, types, shapes and numbers."""
    check = 0
    for name, tensor in sorted(tensors.items()):
        check = zlib.crc32(repr((name, tensor.dtype, tuple(tensor.shape))).encode(), check)
        check = zlib.crc32(tensor.flatten().view(torch.uint8).numpy().data, check)
    return check
