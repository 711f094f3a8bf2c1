"""Embeddings kept between tasks, runs and processes, found by what made them and never by where they stood.

    DIRECTORY/SPACE/space.json           what the vectors of a space depend on besides the item, by name
    DIRECTORY/SPACE/NAME.safetensors     a shard: keys and contents (its index), vectors, a digest of all three

A *space* is one model under one set of settings; a *key* names an item and its side. Shards are only ever added, each
under a name of its own, and appear whole or not at all, so that any number of processes may write at once. A shard that
is damaged is removed and its vectors are computed again. The oldest shards go when a bound on the bytes is reached. A
cache saves work: that it cannot be read or written never costs any.
"""

import json
import logging
import os
import re
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mmembed.counters import count
from mmembed.errors import InputError
from mmembed.files import fingerprint, whole_file, write_json

logger = logging.getLogger(__name__)

SUFFIX = ".safetensors"
KEY_BYTES = 16
HEADER_BYTES = 512
"""Of a shard, more or less."""
LEFT_OVER_S = 24 * 3600
"""Temporary files older than this were left by a process that was killed."""


@dataclass(frozen=True)
class Key:
    """Names one vector of a space.

    Args:
        name: 32 hex digits of everything about the item that its vector depends on, its side too.
        content: 32 hex digits of its content alone; tells why a vector is not there, never finds one.
    """

    name: str
    content: str


class EmbeddingCache:
    """A folder of spaces, bounded in bytes.

    Args:
        directory: the folder, made when something is first written.
        max_bytes: of all shards together; those that were not used for longest go first.
    """

    def __init__(self, directory: Path | str, *, max_bytes: int) -> None:
        if max_bytes < 1:
            raise InputError("cache", expected="room for at least 1 byte", got=max_bytes, remedy="leave the cache out")
        self.directory, self.max_bytes = Path(directory), max_bytes

    def space(self, parts: Mapping[str, str]) -> "Space":
        """The space of a model: ``parts`` are all that its vectors depend on besides the item."""
        return Space(self, dict(parts))

    def spaces(self) -> "Iterator[Space]":
        """Every space that is there."""
        for path in sorted(self.directory.glob("*/space.json")):
            try:
                parts = json.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError) as error:
                logger.warning("%s: %s; left out", path, error)
                continue
            yield Space(self, parts)

    def make_room(self, num_bytes: int, kept: "set[Path]") -> bool:
        """Remove the shards used least lately, none of ``kept``, until ``num_bytes`` more fit; whether they do."""
        self._sweep()
        shards = [seen for path in self.directory.glob(f"*/*{SUFFIX}") if (seen := _seen(path))]
        if num_bytes + sum(size for _, size, path in shards if path in kept) > self.max_bytes:
            return False
        total = num_bytes + sum(size for _, size, _ in shards)
        for _, size, path in sorted(seen for seen in shards if seen[2] not in kept):
            if total <= self.max_bytes:
                break
            with suppress(FileNotFoundError):
                path.unlink()
            total -= size
        return True

    def _sweep(self) -> None:
        for part in self.directory.glob("*/.*.part"):
            seen = _seen(part)
            if seen is not None and time.time() - seen[0] / 1e9 > LEFT_OVER_S:
                part.unlink(missing_ok=True)


class Space:
    """The vectors of one model; see :meth:`EmbeddingCache.space`.

    What other processes add while this one runs is found after :meth:`refresh`.
    """

    def __init__(self, cache: EmbeddingCache, parts: dict[str, str]) -> None:
        self.cache, self.parts = cache, parts
        self.name = space_name(parts)
        self.directory = cache.directory / self.name
        self._rows: dict[str, tuple[Path, int]] = {}
        self._contents: set[str] = set()
        self._read: set[Path] = set()
        self._whole: set[Path] = set()
        self._used: set[Path] = set()
        self.refresh()

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, key: Key) -> bool:
        return key.name in self._rows

    def knows_content(self, key: Key) -> bool:
        """Whether a vector of the same content is there, under whatever instruction and side."""
        return key.content in self._contents

    def refresh(self) -> None:
        """Read the keys of the shards that came since."""
        for path in sorted(set(self.directory.glob(f"*{SUFFIX}")) - self._read):
            self._index(path)

    def take(self, keys: Sequence[Key]) -> tuple[list[int], Tensor]:
        """The vectors that are there.

        Counts ``cache_hits`` for each of them.

        Returns:
            Which of ``keys`` were found, ascending, and their vectors ``[found, D]`` in float32.
        """
        by_shard: dict[Path, list[tuple[int, int]]] = {}
        for number, key in enumerate(keys):
            if key.name in self._rows:
                path, row = self._rows[key.name]
                by_shard.setdefault(path, []).append((number, row))
        found: list[int] = []
        vectors: list[Tensor] = []
        for path, places in by_shard.items():
            read = self._vectors(path)
            if read is not None:
                found += [number for number, _ in places]
                vectors.append(read[[row for _, row in places]])
        count("cache_hits", len(found))
        if not found:
            return [], torch.empty(0, 0)
        order = np.argsort(found)
        return [found[i] for i in order], torch.cat(vectors)[order]

    def add(self, keys: Sequence[Key], vectors: Tensor) -> bool:
        """Write a shard of vectors ``[N, D]``, kept as float32; False where bound or disk leave no room for them."""
        tensors = {"keys": _bytes_of([key.name for key in keys]), "contents": _bytes_of([key.content for key in keys])}
        tensors["vectors"] = vectors.detach().float().cpu().contiguous()
        path = self.directory / f"{uuid.uuid4().hex}{SUFFIX}"
        try:
            if not self.cache.make_room(HEADER_BYTES + sum(t.nbytes for t in tensors.values()), self._used):
                raise OSError(f"full at {self.cache.max_bytes} bytes")
            if not (self.directory / "space.json").is_file():
                write_json(self.directory / "space.json", self.parts)
            with whole_file(path) as part:
                save_file(tensors, part, metadata={"digest": _digest(tensors)})
        except (OSError, SafetensorError) as error:
            logger.warning("%s: %s; vectors are not kept", self.cache.directory, error)
            return False
        self._index(path)
        self._used.add(path)
        return True

    def _index(self, path: Path) -> None:
        try:
            with safe_open(path, framework="pt") as file:
                names, contents = (_names_of(file.get_tensor(name)) for name in ("keys", "contents"))
        except SafetensorError as error:
            self._remove(path, error)
        except OSError as error:
            self._forget(path, error)
        else:
            self._read.add(path)
            self._contents |= set(contents)
            for row, name in enumerate(names):
                self._rows.setdefault(name, (path, row))

    def _vectors(self, path: Path) -> Tensor | None:
        """The vectors of a shard; None where it is gone, damaged or out of reach."""
        try:
            with safe_open(path, framework="pt") as file:
                vectors: Tensor = file.get_tensor("vectors")
                if path not in self._whole:
                    tensors = {"vectors": vectors} | {name: file.get_tensor(name) for name in ("keys", "contents")}
                    if (file.metadata() or {}).get("digest") != _digest(tensors):
                        raise SafetensorError("bytes that are not those written")
        except SafetensorError as error:
            self._remove(path, error)
            return None
        except OSError as error:
            self._forget(path, error)
            return None
        self._whole.add(path)
        self._used.add(path)
        # another user's shard may be read, but not marked as used
        with suppress(OSError):
            os.utime(path)
        return vectors

    def _remove(self, path: Path, problem: object) -> None:
        """Take a damaged shard away: it holds nothing that cannot be computed again."""
        self._forget(path, f"expected a whole shard, got {problem}")
        with suppress(OSError):
            path.unlink()

    def _forget(self, path: Path, problem: object) -> None:
        if path.exists():
            logger.warning("%s: %s; its vectors are computed again", path, problem)
        self._rows = {name: place for name, place in self._rows.items() if place[0] != path}
        self._read.discard(path)


def differences(ours: Mapping[str, str], theirs: Mapping[str, str]) -> list[str]:
    """Each part in which two models differ: its name, theirs, ours."""
    names = [name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name)]
    return [f"{name} {_short(theirs.get(name))} -> {_short(ours.get(name))}" for name in names]


def _short(value: str | None) -> str:
    """A value as one reads it: of a fingerprint, its first digits."""
    if value is None:
        return "nothing"
    return value[:12] if re.fullmatch(r"[0-9a-f]{32}", value) else value


def space_name(parts: Mapping[str, str]) -> str:
    """32 hex digits that name a model by all that its vectors depend on."""
    return fingerprint(json.dumps(dict(parts), sort_keys=True))


def _digest(tensors: Mapping[str, Tensor]) -> str:
    return fingerprint(*(tensors[name].numpy().tobytes() for name in ("keys", "contents", "vectors")))


def _bytes_of(names: Sequence[str]) -> Tensor:
    """32 hex digits each -> uint8 ``[N, 16]``."""
    return torch.frombuffer(bytearray.fromhex("".join(names)), dtype=torch.uint8).reshape(-1, KEY_BYTES)


def _names_of(rows: Tensor) -> list[str]:
    digits = rows.numpy().tobytes().hex()
    return [digits[i : i + 2 * KEY_BYTES] for i in range(0, len(digits), 2 * KEY_BYTES)]


def _seen(path: Path) -> tuple[int, int, Path] | None:
    """When a file was last used, its bytes and itself; None where it is gone or out of reach."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size, path
