"""The rows of files and of datasets' folders, one by one, with their places."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_prep.engine.upstream_rows import read_rows
from data_prep.formats import Record
from data_prep.formats.dataset_folders import rows_in_folder, rows_of_folder
from mmembed.errors import InputError

Placed = tuple[str, Record]
"""A row and where it stands: file, and line (from 1) or row (from 0)."""


def rows_of(path: Path) -> Iterator[Placed]:
    """The rows of a file, or of the folder of a dataset, with their places; nothing but a batch is held.

    Raises:
        InputError: no such file, another suffix, or a file or line that cannot be read.
    """
    if path.is_dir():
        return rows_of_folder(path)
    if path.suffix not in (".jsonl", ".parquet"):
        got = f"'{path.suffix}'"
        raise InputError(path, expected="a .jsonl or .parquet file", got=got, remedy="name the file of the rows")
    if not path.is_file():
        raise InputError(path, expected="a file", got="no such file", remedy="check the path")
    return _lines(path) if path.suffix == ".jsonl" else _parquet(path)


def rows_in(path: Path) -> int:
    """How many rows a file has; 0 where nobody can tell."""
    if path.suffix == ".parquet" and path.is_file():
        try:
            return int(pq.read_metadata(path).num_rows)
        except pa.ArrowException:
            return 0
    if path.is_dir():
        return rows_in_folder(path)
    if not path.is_file():
        return 0
    with path.open("rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))


def json_object(line: bytes, where: str) -> dict[str, Any]:
    """The JSON object of a line.

    Raises:
        InputError: it is none.
    """
    try:
        value = json.loads(line)
    except ValueError as error:
        got = f"{line[:40]!r} ({error})"
        raise InputError(where, expected="a JSON object", got=got, remedy="mend the line") from error
    if not isinstance(value, dict):
        raise InputError(where, expected="a JSON object", got=f"{value!r:.60}", remedy="write {...} on each line")
    return value


def _lines(path: Path) -> Iterator[Placed]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                where = f"{path}: line {number}"
                yield where, json_object(line, where)


def _parquet(path: Path) -> Iterator[Placed]:
    for number, row in enumerate(read_rows([path])):
        yield f"{path}: row {number}", row
