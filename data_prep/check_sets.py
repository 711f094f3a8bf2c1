"""What check.py is given: a table, the folder of a retrieval set, a prepared set, or all of a prepared source."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.engine.manifest import (
    MINIATURE,
    counts_of,
    damaged,
    flaw_of,
    manifest_path,
    missing_words,
    read_manifest,
    stamp,
)
from data_prep.source import SourceSet, read_source, resolve, source_names
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
    """What a name stands for: a path, or what lies there below the data root; else prepared sets by their manifest.

    Raises:
        InputError: nothing of that name is there.
    """
    path = Path(name) if Path(name).exists() else data_root / name
    if path.is_dir() and (path / "manifest.json").is_file():
        return list(_source(path, _known(path.name)))
    if (path.parent / "manifest.json").is_file() and not path.is_file():
        sets = read_manifest(path.parent.parent, path.parent.name)["sets"]
        if path.name not in sets:
            known = _known(path.parent.name)
            expected = f"a set that is prepared in {path.parent}"
            prepares = f"run data_prep/prepare.py {path.parent.name}/{path.name}"
            remedy = prepares if path.name in known else nearest(path.name, [*sets, *known])
            raise InputError(name, expected=expected, got=f"'{path.name}'", remedy=remedy)
        return [_set(path.parent, path.name, sets[path.name])]
    if path.is_dir():
        return [Target(str(path), _tables(path), tuple(_whole(path)))]
    if not path.exists() and name.partition("/")[0] in source_names():
        return _group(name, data_root)
    return [Target(str(path), (path,))]


def _group(name: str, data_root: Path) -> list[Target]:
    """The prepared sets of a group's sources; a source or set comes here only where it is not prepared."""
    targets = [target for part in resolve(name) for target in _source(data_root / part.name, part.sets)]
    if not any(target.tables for target in targets):
        remedy = f"run data_prep/prepare.py {name}"
        raise InputError(name, expected=f"sets that are prepared in {data_root}", got="none", remedy=remedy)
    return targets


def _source(folder: Path, wanted: Mapping[str, SourceSet]) -> Iterator[Target]:
    """The wanted sets of a prepared source, all where none are named; of those that are not prepared a word."""
    sets = read_manifest(folder.parent, folder.name)["sets"]
    for name, entry in sets.items():
        if name in wanted or not wanted:
            yield _set(folder, name, entry)
    absent = [name for name in wanted if name not in sets]
    if absent:
        expected, there = f"{len(wanted)} sets", len(wanted) - len(absent)
        got = f"{there}; not {', '.join(absent[:5])}" + (", ..." if len(absent) > 5 else "")
        remedy = f"run data_prep/prepare.py {folder.name}"
        error = InputError(manifest_path(folder.parent, folder.name), expected=expected, got=got, remedy=remedy)
        yield Target(folder.name, (), (Finding(error, serious=False),))


def _set(folder: Path, name: str, entry: dict[str, Any]) -> Target:
    where = f"{folder.name}/{name}"
    if flaw := flaw_of(entry):
        return Target(where, (), (_finding(where, "a set that this version prepared", flaw, AGAIN),))
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


def _expected(folder: Path, name: str, entry: dict[str, Any]) -> Iterator[Finding]:
    """Whether the set is what its source says now."""
    row = _known(folder.name).get(name)
    where = f"{folder.name}/{name}"
    if row is None:
        return
    if entry["stamp"] != stamp(row, entry["limit"]):
        remedy = f"run data_prep/prepare.py {where}"
        yield _finding(where, "what its source says now", "an older preparation", remedy, serious=False)
    if entry["miniature"] or entry["limit"] is not None:
        got = MINIATURE if entry["miniature"] else f"only the first {entry['limit']} rows"
        yield _finding(where, "the whole set", got, f"run data_prep/prepare.py {where}", serious=False)
        return
    if lacking := missing_words(entry):
        remedy = "get the missing files and prepare it again"
        yield _finding(where, "the whole set", lacking, remedy, serious=False)
    for what, expected, there in zip(("rows", "targets"), (row.rows, row.targets), counts_of(entry), strict=True):
        if expected not in (None, there):
            remedy = "compare the download with what is published"
            yield _finding(where, f"{expected} {what}", f"{there}", remedy)


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
