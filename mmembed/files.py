"""Files that are whole or not there: write beside the target, flush to the disk, rename."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def whole_file(path: Path | str) -> Iterator[Path]:
    """Give a temporary sibling to write to; it takes the name of ``path`` only if the block succeeds."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    os.close(handle)
    part = Path(name)
    try:
        yield part
        _flush(part)
        part.chmod(0o644)
        part.replace(path)
        _flush(path.parent)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def whole_directory(path: Path | str) -> Iterator[Path]:
    """Give a temporary sibling directory to fill; it replaces ``path`` and all it held only if the block succeeds."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part"))
    old = part.with_suffix(".old")
    try:
        yield part
        for written in (part, *part.rglob("*")):
            if written.is_file() or written.is_dir():
                _flush(written)
        part.chmod(0o755)
        if path.exists():
            path.rename(old)
        part.rename(path)
        _flush(path.parent)
    finally:
        if old.exists() and not path.exists():
            old.rename(path)
        for left in (part, old):
            shutil.rmtree(left, ignore_errors=True)


def _flush(path: Path) -> None:
    """Bring to the disk the bytes of a file, or the names in a folder: a renaming outlives a power cut only so."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: Path | str, text: str) -> None:
    """Write ``text`` as UTF-8, atomically."""
    with whole_file(path) as part:
        part.write_text(text, encoding="utf-8")


def write_json(path: Path | str, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically; NaN is refused because JSON has none."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def fingerprint(*parts: str | bytes) -> str:
    """32 hex digits that name these parts; the boundary between parts counts."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()


def bytes_fingerprint(data: bytes) -> str:
    """32 hex digits that name these bytes; a file of the same bytes has the same name."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def file_fingerprint(path: Path | str) -> str:
    """32 hex digits that name the bytes of a file."""
    with Path(path).open("rb") as handle:
        digest = hashlib.file_digest(handle, lambda: hashlib.blake2b(digest_size=16))
    return digest.hexdigest()
