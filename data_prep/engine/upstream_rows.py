"""The rows of a publisher: which files hold a configuration's split, and their records one by one."""

import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from data_prep.converters import Form, Record
from data_prep.engine.pointers import refuse_pointer
from data_prep.source import SourceSet
from mmembed.errors import InputError, nearest

Match: TypeAlias = Callable[[str], list[str]]
"""Files of a repository that a pattern fits, sorted, as paths below it."""

SUFFIXES = (".parquet", ".jsonl", ".json")
"""Of the files that are looked for where no source names them."""
BATCH_ROWS = 32
"""Rows turned to Python at a time: bounds the memory of tables with pictures inside."""
Begun: TypeAlias = list[tuple[int, Path]]
"""Files that were opened, each with the number that its first row has among all rows."""

_SHARD = re.compile(r"(?P<stem>.*)-(?P<number>\d+)-of-(?P<total>\d+)\.\w+\Z")
_ROW = re.compile(r"(?:[^:/]+: )*?row (?P<number>\d+)(?=:|\Z)")


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

    Raises:
        InputError: it does not say it as repositories do.
    """
    try:
        found = _said_patterns(front, config, split)
    except (AttributeError, TypeError, KeyError) as error:
        expected, remedy = "a list of configurations with their data_files", "name the files in the source with files"
        got = f"{front['configs']!r:.200}"
        raise InputError("README.md: configs", expected=expected, got=got, remedy=remedy) from error
    for pattern in found:
        if not isinstance(pattern, str) or pattern.startswith("/") or ".." in PurePosixPath(pattern).parts:
            remedy = "do not trust the repository, or name the files in the source with files"
            raise InputError(
                "README.md: configs", expected="paths below the repository", got=repr(pattern), remedy=remedy
            )
    return [str(PurePosixPath(pattern)) for pattern in found]


def _said_patterns(front: Mapping[str, Any], config: str | None, split: str) -> list[Any]:
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
    text = readme.read_text(encoding="utf-8", errors="replace")
    found = re.match(r"---\s*\n(.*?)\n---\s*(\n|\Z)", text, re.DOTALL)
    try:
        front = yaml.safe_load(found[1]) if found else {}
    except yaml.YAMLError as error:
        got = " ".join(str(error).split())
        raise InputError(readme, expected="front matter in YAML", got=got, remedy="download it again") from error
    return front if isinstance(front, dict) else {}


def row_files(row: SourceSet, part: str | None, front: Mapping[str, Any], match: Match) -> list[str]:
    """Files that hold the rows of a set, or of one part of it.

    The set's own ``parts`` go before its ``files``, these before the front matter, and this before the usual places.
    ``{part}`` in a pattern of ``files`` stands for the part.

    Raises:
        InputError: no file fits: the patterns are named; or shards are missing.
    """
    config = part or row.config
    if own := row.parts.get(part or "rows"):
        patterns = list(own)
        found = next((files for pattern in patterns if (files := match(pattern))), [])
    elif row.files:
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
        where = f"{row.origin}: {config or 'rows'}" + (f", split {row.split}" if row.repo else "")
        expected = f"files like {', '.join(patterns)}"
        remedy = row.obtain or "download it again, or correct config, split or files of the source"
        raise InputError(where, expected=expected, got="none", remedy=remedy)
    found = list(dict.fromkeys(found))
    check_shards(row.origin, found)
    return found


def check_shards(repo: str, files: Iterable[str]) -> None:
    """Refuse files called ``...-00000-of-00002`` that are not all there, or there twice.

    Raises:
        InputError: a number is missing or doubled, or there are shards of two publications.
    """
    shards: dict[str, list[re.Match[str]]] = {}
    for shard in filter(None, map(_SHARD.match, files)):
        shards.setdefault(shard["stem"], []).append(shard)
    for stem, parts in shards.items():
        numbers, totals = sorted(int(part["number"]) for part in parts), {int(part["total"]) for part in parts}
        where, total = f"{repo}: {stem}", max(totals)
        if len(totals) > 1 or len(set(numbers)) < len(numbers):
            got, remedy = ", ".join(part[0] for part in parts[:4]), "take those of an earlier publication away"
            raise InputError(where, expected="each shard once", got=got, remedy=remedy)
        missing = sorted(set(range(min(numbers[0], 1), total + min(numbers[0], 1))) - set(numbers))
        if missing:
            got, remedy = f"no {', '.join(map(str, missing[:5]))}", "download the missing ones"
            raise InputError(where, expected=f"{total} shards", got=got, remedy=remedy)


def placed(error: InputError, begun: Mapping[str, Begun]) -> InputError:
    """An error about row N of a part, as one about a row of the file that this lies in.

    Args:
        error: its place is ``row N`` of the only part, or ``part: row N``; other errors stay as they are.
        begun: the files of each part.
    """
    found = _ROW.match(error.where)
    if found is None:
        return error
    part = next((name for name in begun if f"{name}: row" in found[0]), next(iter(begun)))
    number = int(found["number"])
    first, file = next(((first, file) for first, file in reversed(begun[part]) if first <= number), (0, None))
    if file is None:
        return error
    where = f"{file}: row {number - first}{error.where[found.end() :]}"
    return type(error)(where, expected=error.expected, got=error.got, remedy=error.remedy)


def read_rows(
    files: Sequence[Path], columns: Iterable[str] = (), begun: Begun | None = None, form: Form = "records"
) -> Iterator[Record]:
    """The records of files, one after the other, in order.

    Args:
        files: .parquet, .jsonl, .json (a list of objects, or an object a line), or .csv, whose fields are all texts.
        columns: fields that every file must have; JSON lines that lack one are refused line by line.
        begun: takes each file when it is opened.
        form: how a .json file holds them, see :data:`data_prep.converters.Form`.

    Raises:
        InputError: another suffix, a file that is corrupt or cut off, or a missing column: the file is named.
    """
    wanted, number = tuple(columns), 0
    for file in files:
        if begun is not None:
            begun.append((number, file))
        for record in _records(file, wanted, form):
            number += 1
            yield record


def _records(file: Path, columns: tuple[str, ...], form: Form) -> Iterator[Record]:
    refuse_pointer(file, "rows")
    if form != "records":
        return _values(file, form)
    if file.suffix == ".csv":
        return _csv(file, columns)
    if file.suffix == ".parquet":
        return _parquet(file, columns)
    if file.suffix == ".jsonl" or (file.suffix == ".json" and not _is_list(file)):
        return _lines(file, columns)
    if file.suffix == ".json":
        return _list(file, columns)
    expected = f"a file of rows ({', '.join((*SUFFIXES, '.csv'))})"
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


def _values(file: Path, form: Form) -> Iterator[Record]:
    """The records of a JSON file that holds none: its values, or what it has under each key."""
    content = _json(file.read_bytes(), str(file))
    kind, expected = (list, "a JSON list") if form == "values" else (dict, "a JSON object")
    if not isinstance(content, kind):
        raise InputError(file, expected=expected, got=type(content).__name__, remedy="download the file again")
    if isinstance(content, dict):
        return ({"key": key, "value": value} for key, value in content.items())
    return ({"value": value} for value in content)


def _csv(file: Path, columns: tuple[str, ...]) -> Iterator[Record]:
    remedy = "download it again: it is corrupt or cut off"
    try:
        with file.open(encoding="utf-8", newline="") as lines:
            rows = csv.DictReader(lines, strict=True)
            known = rows.fieldnames or ()
            check_columns(file, columns, known)
            for row in rows:
                # what there is no column for stands under None, and None where a field is missing
                if None in row or None in row.values():
                    where, expected = f"{file}: line {rows.line_num}", f"{len(known)} fields"
                    raise InputError(where, expected=expected, got="another number", remedy=remedy)
                yield row
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(file, expected="a whole CSV file in UTF-8", got=error, remedy=remedy) from error


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
