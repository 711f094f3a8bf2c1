"""The manifest of a prepared source: what was made, from what, by which version; the last thing that is written."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeAlias

from data_prep.engine.unpack import marker_of
from data_prep.source import Source, SourceSet
from mmembed.errors import InputError
from mmembed.files import file_fingerprint, fingerprint, write_json

UNPACKED = "unpacked"
"""Folder below the data root that archives are unpacked into, shared by the sources that need them."""
VERSION = 1
"""Counts up when the same rows become something else: sets of another version are prepared again."""

Entry: TypeAlias = dict[str, Any]
"""What the manifest says of a set."""


def manifest_path(data_root: Path, source: str) -> Path:
    """Where the manifest of a source lies."""
    return data_root / source / "manifest.json"


def read_manifest(data_root: Path, source: str) -> dict[str, Any]:
    """The manifest of a source; one without sets where nothing was prepared.

    Raises:
        InputError: it cannot be read.
    """
    path = manifest_path(data_root, source)
    if not path.exists():
        return {"source": source, "sets": {}}
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(manifest["sets"], dict):
            raise ValueError("no sets")
    except (ValueError, KeyError, TypeError) as error:
        remedy = "remove it and prepare again"
        raise InputError(path, expected="a manifest", got=str(error), remedy=remedy) from error
    return manifest


def record_set(data_root: Path, source: Source, name: str, entry: Entry | None) -> None:
    """Write what was made of a set into the manifest; None takes it out."""
    manifest = read_manifest(data_root, source.name)
    manifest |= {"source": source.name, "about": source.about}
    manifest["sets"].pop(name, None)
    if entry is not None:
        manifest["sets"][name] = entry
    write_json(manifest_path(data_root, source.name), manifest)


def stamp(row: SourceSet, limit: int | None) -> str:
    """Names what decides what a set becomes: its fields, the version and the limit; not what is only compared."""
    fields = {key: value for key, value in asdict(row).items() if key not in ("rows", "licence")}
    for media in fields["media"]:
        del media["sha256"]
    return fingerprint(json.dumps([VERSION, limit, fields], sort_keys=True))


def is_prepared(data_root: Path, source: str, row: SourceSet, limit: int | None = None) -> bool:
    """Whether a set lies there whole, made by this version from these fields.

    The manifest must say so, every file must be there in the size it was written, and the folders of the media, too.
    """
    entry = read_manifest(data_root, source)["sets"].get(row.name)
    return entry is not None and entry["stamp"] == stamp(row, limit) and not damaged(data_root / source, entry)


def files_of(folder: Path, paths: Iterable[Path]) -> dict[str, dict[str, Any]]:
    """Size and fingerprint of written files, by their paths below ``folder``."""
    return {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "fingerprint": file_fingerprint(path)}
        for path in paths
    }


def damaged(folder: Path, entry: Mapping[str, Any], *, content: bool = False) -> str:
    """The first file or folder of a set that is not as it was written, or an empty string.

    Args:
        folder: the source's folder.
        entry: what the manifest says of the set. Its media are folders, relative to the data root or absolute.
        content: whether the bytes are read, too, and not just counted.
    """
    for name, written in entry["files"].items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != written["bytes"]:
            return str(name)
        if content and file_fingerprint(path) != written["fingerprint"]:
            return str(name)
    for layer in entry["media"]:
        path = folder.parent / layer
        # an archive that was not unpacked to its end has no marker
        if not path.is_dir() or (layer.startswith(f"{UNPACKED}/") and not marker_of(path).is_file()):
            return str(layer)
    made = entry["made"]
    if made and count_files(folder / made["folder"]) != (made["files"], made["bytes"]):
        return str(made["folder"])
    return ""


def count_files(folder: Path) -> tuple[int, int]:
    """Files below a folder, and their bytes."""
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()] if folder.is_dir() else []
    return len(sizes), sum(sizes)
