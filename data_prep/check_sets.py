"""What check.py is given: a table, the folder of a retrieval set, a prepared set, or all of a prepared source."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.engine.manifest import damaged, manifest_path, read_manifest, stamp
from data_prep.source import SourceSet, read_source, source_names
from mmembed.errors import InputError, nearest
from mmembed.evaluation.retrieval_set import read_retrieval_set

AGAIN = "prepare it again with --overwrite"


@dataclass(frozen=True)
class Finding:
    """Something to know about a row, or about a set.

    Args:
        error: file, row, field, expected, got and remedy.
        serious: whether it cannot be used; duplicates, long texts and short clips are only notes.
    """

    error: InputError
    serious: bool = True


@dataclass(frozen=True)
class Target:
    """One thing to check.

    Args:
        name: what the report calls it.
        tables: its tables, whose rows are to be checked.
        findings: what is to say about it as a whole.
    """

    name: str
    tables: tuple[Path, ...]
    findings: tuple[Finding, ...] = ()


def targets_of(name: str, data_root: Path) -> list[Target]:
    """What a name stands for: a path, or what lies there below the data root; else a set by its source's manifest.

    Raises:
        InputError: nothing of that name is there.
    """
    path = Path(name) if Path(name).exists() else data_root / name
    if path.is_dir() and (path / "manifest.json").is_file():
        return list(_source(path))
    if (path.parent / "manifest.json").is_file() and not path.is_file():
        sets = read_manifest(path.parent.parent, path.parent.name)["sets"]
        if path.name not in sets:
            expected = f"a set that is prepared in {path.parent}"
            remedy = nearest(path.name, sets)
            raise InputError(name, expected=expected, got=f"'{path.name}'", remedy=remedy)
        return [_set(path.parent, path.name, sets[path.name])]
    if path.is_dir():
        return [Target(str(path), _tables(path), tuple(_whole(path)))]
    return [Target(str(path), (path,))]


def _source(folder: Path) -> Iterator[Target]:
    """Every set of a prepared source; of those that are not prepared a word."""
    sets = read_manifest(folder.parent, folder.name)["sets"]
    for name, entry in sets.items():
        yield _set(folder, name, entry)
    absent = [name for name in _known(folder.name) if name not in sets]
    if absent:
        expected = f"{len(sets) + len(absent)} sets"
        got = f"{len(sets)}; not {', '.join(absent[:5])}" + (", ..." if len(absent) > 5 else "")
        remedy = f"run data_prep/prepare.py {folder.name}"
        error = InputError(manifest_path(folder.parent, folder.name), expected=expected, got=got, remedy=remedy)
        yield Target(folder.name, (), (Finding(error, serious=False),))


def _set(folder: Path, name: str, entry: Mapping[str, Any]) -> Target:
    where = f"{folder.name}/{name}"
    findings = [*_recorded(folder, where, entry), *_expected(folder, name, entry)]
    if entry["kind"] == "pairs":
        return Target(where, (folder / f"{name}.parquet",), tuple(findings))
    return Target(where, _tables(folder / name), (*findings, *_whole(folder / name)))


def _recorded(folder: Path, where: str, entry: Mapping[str, Any]) -> Iterator[Finding]:
    """Whether the files are those that the manifest speaks of, and what it says of rows put aside."""
    if lost := damaged(folder, entry, content=True):
        yield _finding(f"{where}: {lost}", "the file as it was written", "another, or none", AGAIN)
    if count := entry["put_aside"]["count"]:
        first = entry["put_aside"]["first"][0]
        got = f"{count} put aside; the first: {first}"
        yield _finding(where, "every row", got, "mend the data and prepare again", serious=False)


def _expected(folder: Path, name: str, entry: Mapping[str, Any]) -> Iterator[Finding]:
    """Whether the set is what its source says now."""
    row = _known(folder.name).get(name)
    where = f"{folder.name}/{name}"
    if row is None:
        return
    if entry["stamp"] != stamp(row, entry["limit"]):
        remedy = f"run data_prep/prepare.py {where}"
        yield _finding(where, "what its source says now", "an older preparation", remedy, serious=False)
    there = entry["rows"] + entry["put_aside"]["count"]
    if entry["compared"] and row.rows is not None and there != row.rows:
        remedy = "compare the download with what is published"
        yield _finding(where, f"{row.rows} rows", f"{there}", remedy)


def _whole(folder: Path) -> Iterator[Finding]:
    """Whether a retrieval set holds together."""
    try:
        read_retrieval_set(folder)
    except InputError as error:
        yield Finding(error)


def _tables(folder: Path) -> tuple[Path, ...]:
    tables = [folder / f"{name}{suffix}" for name in ("queries", "corpus") for suffix in (".jsonl", ".parquet")]
    return tuple(table for table in tables if table.is_file())


def _known(source: str) -> Mapping[str, SourceSet]:
    return read_source(source).sets if source in source_names() else {}


def _finding(where: str, expected: str, got: str, remedy: str, *, serious: bool = True) -> Finding:
    return Finding(InputError(where, expected=expected, got=got, remedy=remedy), serious)
