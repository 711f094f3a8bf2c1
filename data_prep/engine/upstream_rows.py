"""The rows of a publisher: which files hold a configuration's split, and their records one by one."""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from data_prep.converters import Record
from data_prep.source import SourceSet
from mmembed.errors import InputError, nearest

Match: TypeAlias = Callable[[str], list[str]]
"""Files of a repository that a pattern fits, sorted, as paths below it."""

SUFFIXES = (".parquet", ".jsonl", ".json")
BATCH_ROWS = 32
"""Rows turned to Python at a time: bounds the memory of tables with pictures inside."""
LFS_POINTER = b"version https://git-lfs"


def regex_of(pattern: str) -> re.Pattern[str]:
    """A glob pattern as a regular expression: ``*`` stays within a folder, ``**/`` is any number of them."""
    special = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    pieces = re.split(r"(\*\*/|\*\*|\*|\?|\[[^\]]+\])", pattern)
    return re.compile("".join(special.get(piece) or _literal(piece) for piece in pieces) + r"\Z")


def _literal(piece: str) -> str:
    if piece.startswith("[") and piece.endswith("]"):
        negated = piece[1] in "!^"
        return f"[{'^' * negated}{re.escape(piece[1 + negated : -1])}]".replace(r"\-", "-")
    return re.escape(piece)


def patterns_of(front: Mapping[str, Any], config: str | None, split: str) -> list[str]:
    """Patterns of a split's files by the front matter of a README; none where it says nothing of it.

    Args:
        front: the front matter.
        config: the configuration; None is the only one, or the default.
        split: the split.
    """
    for entry in front.get("configs") or ():
        wanted = config is None or str(entry.get("config_name")) == config
        alone = config is not None or len(front["configs"]) == 1 or entry.get("default") is True
        if not (wanted and (alone or entry.get("config_name") == "default")):
            continue
        files = entry.get("data_files") or ()
        if not files and "data_dir" in entry:
            return [f"{entry['data_dir']}/{stem}{suffix}" for stem in (f"{split}-*", split) for suffix in SUFFIXES]
        if isinstance(files, Mapping):
            files = [{"split": name, "path": path} for name, path in files.items()]
        files = [files] if isinstance(files, str) else files
        paths = [file if isinstance(file, Mapping) else {"split": "train", "path": file} for file in files]
        found = [file["path"] for file in paths if str(file.get("split", "train")) == split]
        return [pattern for path in found for pattern in ([path] if isinstance(path, str) else path)]
    return []


def usual_patterns(config: str | None, split: str) -> list[str]:
    """Where repositories without front matter keep a split, the surest first."""
    folders = [f"{config}/", f"data/{config}/"] if config else ["data/", ""]
    stems = [f"{split}-*", split, f"{split}*"]
    patterns = [f"{folder}{stem}{suffix}" for stem in stems for folder in folders for suffix in SUFFIXES]
    if config:
        patterns += [f"{stem}{suffix}" for stem in (f"{config}_{split}", f"{config}-{split}") for suffix in SUFFIXES]
        patterns += [f"{config}/*{suffix}" for suffix in SUFFIXES] if split == "train" else []
        patterns += [f"{folder}{config}{suffix}" for folder in ("", "data/") for suffix in SUFFIXES]
    return patterns


def front_matter(readme: Path) -> dict[str, Any]:
    """The front matter of a README; empty where there is none."""
    if not readme.is_file():
        return {}
    found = re.match(r"---\s*\n(.*?)\n---\s*(\n|\Z)", readme.read_text(encoding="utf-8"), re.DOTALL)
    try:
        front = yaml.safe_load(found[1]) if found else {}
    except yaml.YAMLError as error:
        got = " ".join(str(error).split())
        raise InputError(readme, expected="front matter in YAML", got=got, remedy="download it again") from error
    return front if isinstance(front, dict) else {}


def row_files(row: SourceSet, part: str | None, front: Mapping[str, Any], match: Match) -> list[str]:
    """Files that hold the rows of a set, or of one part of it.

    The set's own ``files`` go before the front matter, and this before the usual places. ``{part}`` in a pattern stands
    for the part.

    Raises:
        InputError: no file fits: the patterns are named.
    """
    config = part or row.config
    if row.files:
        patterns = [pattern.replace("{part}", part or "") for pattern in row.files]
        found = [file for pattern in patterns for file in match(pattern)]
    else:
        patterns = patterns_of(front, config, row.split)
        found = [file for pattern in patterns for file in match(pattern)]
        if not found:
            usual = usual_patterns(config, row.split)
            found = next((files for pattern in usual if (files := match(pattern))), [])
            patterns = patterns or usual[:6]
    if not found:
        where = f"{row.repo}: {config or 'rows'}, split {row.split}"
        expected = f"files like {', '.join(patterns)}"
        remedy = "download it again, or correct config, split or files of the source"
        raise InputError(where, expected=expected, got="none", remedy=remedy)
    return list(dict.fromkeys(found))


def read_rows(files: Sequence[Path], columns: Iterable[str] = ()) -> Iterator[Record]:
    """The records of files, one after the other, in order.

    Args:
        files: .parquet, .jsonl, or .json (a list of objects, or an object a line).
        columns: fields that every file must have; JSON lines that lack one are refused line by line.

    Raises:
        InputError: another suffix, a file that is corrupt or cut off, or a missing column: the file is named.
    """
    wanted = tuple(columns)
    for file in files:
        _refuse_pointer(file)
        if file.suffix == ".parquet":
            yield from _parquet(file, wanted)
        elif file.suffix == ".jsonl" or (file.suffix == ".json" and not _is_list(file)):
            yield from _lines(file, wanted)
        elif file.suffix == ".json":
            yield from _list(file, wanted)
        else:
            expected = f"a file of rows ({', '.join(SUFFIXES)})"
            raise InputError(file, expected=expected, got=f"'{file.suffix}'", remedy="correct files of the source")


def check_columns(file: Path | str, wanted: Iterable[str], there: Iterable[str]) -> None:
    """Refuse rows that lack a column.

    Raises:
        InputError: the first that is missing, with the nearest that is there.
    """
    known = list(there)
    for column in wanted:
        if column not in known:
            got = f"columns {', '.join(known)}"
            raise InputError(f"{file}: {column}", expected="this column", got=got, remedy=nearest(column, known))


def _refuse_pointer(file: Path) -> None:
    with file.open("rb") as handle:
        if handle.read(len(LFS_POINTER)) == LFS_POINTER:
            raise InputError(file, expected="rows", got="a Git LFS pointer", remedy="run git lfs pull in the clone")


def _parquet(file: Path, columns: tuple[str, ...]) -> Iterator[Record]:
    try:
        # no memory map and no reading ahead: a shard of pictures would be held whole
        with pq.ParquetFile(file, pre_buffer=False) as table:
            check_columns(file, columns, table.schema_arrow.names)
            for batch in table.iter_batches(batch_size=BATCH_ROWS, use_threads=False):
                yield from batch.to_pylist()
    except (pa.ArrowException, OSError) as error:
        got = " ".join(str(error).split())[:200]
        remedy = "download it again: it is corrupt or cut off"
        raise InputError(file, expected="a whole Parquet file", got=got, remedy=remedy) from error


def _lines(file: Path, columns: tuple[str, ...]) -> Iterator[Record]:
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield _record(_json(line, f"{file}: line {number}"), columns, f"{file}: line {number}")


def _is_list(file: Path) -> bool:
    with file.open("rb") as handle:
        return handle.read(64).lstrip().startswith(b"[")


def _list(file: Path, columns: tuple[str, ...]) -> Iterator[Record]:
    for number, value in enumerate(_json(file.read_bytes(), str(file))):
        yield _record(value, columns, f"{file}: row {number}")


def _json(data: bytes, where: str) -> Any:
    try:
        return json.loads(data)
    except ValueError as error:
        remedy = "download the file again: it is corrupt or cut off"
        raise InputError(where, expected="JSON", got=str(error), remedy=remedy) from error


def _record(value: Any, columns: tuple[str, ...], where: str) -> Record:
    if not isinstance(value, dict):
        raise InputError(where, expected="a JSON object", got=type(value).__name__, remedy="download the file again")
    check_columns(where, columns, value)
    return value
