"""The manifest of a prepared source: what was made, from what, by which version; the last thing that is written."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeAlias

from data_prep.engine.unpack import stamp_of
from data_prep.source import Source, SourceSet, read_source, source_names
from mmembed.errors import InputError
from mmembed.files import file_fingerprint, fingerprint, write_json

UNPACKED = "unpacked"
"""Folder below the data root that archives are unpacked into, shared by the sources that need them."""
VERSION = 2
"""Counts up when the same rows become something else: sets of another version are prepared again."""
MINIATURE = "a miniature"
"""What :func:`why_not_whole` says of a set that was drawn."""
TARGETS, MISSING_QUERIES, MISSING_TARGETS = "targets", "missing queries", "missing targets"
"""Notes of a retrieval set: how many targets it has, and what was left out of it because pictures are missing."""
COMPARED = ("rows", "targets", "licence", "obtain")
"""Fields of a set that are only compared or shown, and change nothing of what it becomes."""
LATER = ("folders", "parts")
"""Fields that sets were once without: empty, they do not make what was prepared then another set."""

Entry: TypeAlias = dict[str, Any]
"""What the manifest says of a set: the keys of :data:`FIELDS`."""
FIELDS = {
    "kind": str,  # "pairs" or "retrieval set"
    "rows": int,  # pairs, or queries
    "put_aside": dict,  # how many rows, and the first of them in words
    "notes": dict,  # what is odd, and how often
    "files": dict,  # size and fingerprint of what was written
    "made": dict | None,  # folder, number and bytes of the media that a converter wrote
    "stamp": str,  # see `stamp`
    "limit": int | None,  # only so many rows were taken
    "miniature": bool,  # whether what it was made of was drawn
    "media": list,  # see `data_prep.engine.media_tree.Layer`
    "inputs": dict,  # see `data_prep.engine.inputs`
    "expected": int | None,  # rows that the source expected, where all were taken; expected_targets beside it
    "licence": str,
}
"""The fields of an entry, beside ``version`` and ``seconds``."""


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
        manifest["sets"][name] = {"version": VERSION, **entry}
    write_json(manifest_path(data_root, source.name), manifest)


def entry_of(data_root: Path, source: str, name: str) -> Entry | None:
    """What the manifest says of a set; None where it says nothing, or nothing that this version can read."""
    entry = read_manifest(data_root, source)["sets"].get(name)
    return None if entry is None or flaw_of(entry) else entry


def flaw_of(entry: Any) -> str:
    """Why an entry of a manifest cannot be read, in words; empty where it can."""
    if not isinstance(entry, dict) or entry.get("version") != VERSION:
        return "made by another version"
    bad = next((name for name, kind in FIELDS.items() if name not in entry or not isinstance(entry[name], kind)), None)
    return f"damaged: the manifest lacks its {bad}" if bad else ""


def stamp(row: SourceSet, limit: int | None) -> str:
    """Names what decides what a set becomes: its fields, the version and the limit; not what is only compared."""
    fields = {key: value for key, value in asdict(row).items() if key not in COMPARED}
    fields = {key: value for key, value in fields.items() if value or key not in LATER}
    for media in fields["media"]:
        del media["sha256"]
    return fingerprint(json.dumps([VERSION, limit, fields], sort_keys=True))


def is_prepared(data_root: Path, source: str, row: SourceSet, limit: int | None = None) -> bool:
    """Whether a set lies there whole, made by this version from these fields.

    The manifest must say so, every file must be there in the size it was written, and the folders of the media, too.
    """
    entry = entry_of(data_root, source, row.name)
    return entry is not None and entry["stamp"] == stamp(row, limit) and not damaged(data_root / source, entry)


def why_not_whole(data_root: Path, name: str) -> str | None:
    """Why a set is not to be taken for the published one, in words; nothing large is read.

    Args:
        data_root: where prepared data lie.
        name: ``source/set``.

    Returns:
        None where it is whole, or where the name is no set of a source that there is.
    """
    head, _, set_name = name.partition("/")
    row = read_source(head).sets.get(set_name) if head in source_names() else None
    return (row and standing(data_root, head, row)) or None


def standing(data_root: Path, source: str, row: SourceSet) -> str:
    """What keeps a set from being whole, in words; empty where nothing does."""
    try:
        entry = read_manifest(data_root, source)["sets"].get(row.name)
    except InputError as error:
        return f"damaged: {error}"
    if entry is None:
        return "not prepared"
    if flaw := flaw_of(entry):
        return flaw
    if entry["stamp"] != stamp(row, entry["limit"]):
        return "made by another version, or from other fields of its source"
    if lost := damaged(data_root / source, entry, count=False):
        return f"damaged: {lost}"
    if entry["miniature"]:
        return MINIATURE
    if entry["limit"] is not None:
        return f"only the first {entry['limit']} rows"
    if lacking := missing_words(entry):
        return lacking
    there, targets = counts_of(entry)
    if row.rows not in (None, there):
        return f"{there} rows where {row.rows} are expected"
    return f"{targets} targets where {row.targets} are expected" if row.targets not in (None, targets) else ""


def counts_of(entry: Entry) -> tuple[int, int | None]:
    """Rows and targets that the source brought, with those that were put aside or left out; None without targets."""
    notes = entry["notes"]
    rows = entry["rows"] + entry["put_aside"]["count"] + notes.get(MISSING_QUERIES, 0)
    return rows, notes[TARGETS] + notes.get(MISSING_TARGETS, 0) if TARGETS in notes else None


def missing_words(entry: Entry) -> str:
    """What was left out of a set because its pictures are missing, in words; empty where nothing was."""
    queries, targets = (entry["notes"].get(name, 0) for name in (MISSING_QUERIES, MISSING_TARGETS))
    return f"without {queries} queries and {targets} targets whose media are missing" if queries or targets else ""


def sentence(entry: Entry) -> str:
    """What the manifest says of a set, in words."""
    noun = "pairs" if entry["kind"] == "pairs" else "queries"
    words = [f"{entry['rows']} {noun}"]
    if entry["limit"] is not None:
        words.append(f"the first {entry['limit']} rows only")
    words += [f"{count} {note}" for note, count in entry["notes"].items()]
    if aside := entry["put_aside"]["count"]:
        words.append(f"{aside} rows put aside (see the manifest); the first: {entry['put_aside']['first'][0]}")
    if is_short(entry):
        expected = [f"{entry['expected']}"] if entry["expected"] is not None else []
        expected += [f"{count} targets"] if (count := entry.get("expected_targets")) is not None else []
        words.append(f"EXPECTED {' and '.join(expected)}: the data are not those that were published")
    return "; ".join(words)


def is_short(entry: Entry) -> bool:
    """Whether a set has fewer or more rows or targets than its source expected."""
    rows, targets = counts_of(entry)
    return entry["expected"] not in (None, rows) or entry.get("expected_targets") not in (None, targets)


def files_of(folder: Path, paths: Iterable[Path]) -> dict[str, dict[str, Any]]:
    """Size and fingerprint of written files, by their paths below ``folder``."""
    return {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "fingerprint": file_fingerprint(path)}
        for path in paths
    }


def damaged(folder: Path, entry: Mapping[str, Any], *, count: bool = True, content: bool = False) -> str:
    """The first file or folder of a set that is not as it was written, or an empty string.

    Args:
        folder: the source's folder.
        entry: what the manifest says of the set.
        count: whether the media that its converter wrote are counted, which may be millions of files.
        content: whether the bytes of tables are read, too, and not just counted.
    """
    for name, written in entry["files"].items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != written["bytes"]:
            return str(name)
        if content and file_fingerprint(path) != written["fingerprint"]:
            return str(name)
    for layer in entry["media"]:
        path = folder.parent / layer["folder"]
        # an archive that was not unpacked to its end has no stamp, and one that was unpacked anew has another
        if not path.is_dir() or (layer["archive"] is not None and stamp_of(path) != layer["archive"]):
            return str(layer["folder"])
    made = entry["made"]
    if made and not (folder / made["folder"]).is_dir():
        return str(made["folder"])
    if made and count and count_files(folder / made["folder"]) != (made["files"], made["bytes"]):
        return str(made["folder"])
    return ""


def count_files(folder: Path) -> tuple[int, int]:
    """Files below a folder, and their bytes."""
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()] if folder.is_dir() else []
    return len(sizes), sum(sizes)
