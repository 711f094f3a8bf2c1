"""Random access to the rows of a file on disk, JSON lines or Parquet, in memory that does not grow with the file."""

import bisect
import json
import mmap
from array import array
from collections.abc import Callable, Iterable, Mapping
from itertools import accumulate
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from mmembed.errors import InputError
from mmembed.files import whole_file

_BATCH_ROWS = 256
"""Rows converted at a time: bounds the memory of a table with pictures inside."""


class RowStore(Protocol):
    """Rows of plain values by number. Stores are picklable and safe to use after a fork."""

    path: Path

    def __len__(self) -> int:
        """Rows in the file."""
        ...

    def columns(self) -> list[str]:
        """Names of the fields of the table, in order."""
        ...

    def record(self, row: int) -> dict[str, Any]:
        """The plain values of a row."""
        ...

    def where(self, row: int) -> str:
        """What errors call a row: file and line, or file and row."""
        ...


def open_store(path: Path) -> RowStore:
    """The store for a file, chosen by its suffix.

    Raises:
        InputError: no such file, another suffix, an empty file, or one that cannot be read.
    """
    kinds: dict[str, Callable[[Path], RowStore]] = {".jsonl": JsonLines, ".parquet": Parquet}
    if path.suffix not in kinds:
        raise InputError(path, expected="a .jsonl or .parquet file", got=f"'{path.suffix}'", remedy="convert the table")
    if not path.is_file():
        got = "a folder" if path.is_dir() else "no such file"
        raise InputError(path, expected="a file", got=got, remedy="check the path and --data-root")
    store = kinds[path.suffix](path)
    if len(store) == 0:
        raise InputError(path, expected="at least one row", got="an empty table", remedy="write it again")
    return store


class JsonLines:
    """One JSON object a line. Opening reads the file once to find where its lines start.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as file:
            self._ends = array("Q", accumulate(map(len, file)))
        self._map: mmap.mmap | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_map": None}

    def __len__(self) -> int:
        return len(self._ends)

    def columns(self) -> list[str]:
        """Fields of the first row."""
        return list(self.record(0))

    def record(self, row: int) -> dict[str, Any]:
        """The JSON object of a line."""
        start = self._ends[row - 1] if row else 0
        line = self._mapped()[start : self._ends[row]]
        try:
            value = json.loads(line)
        except ValueError as error:
            raise InputError(
                self.where(row), expected="a JSON object", got=f"{_excerpt(line)} ({error})", remedy="mend the line"
            ) from error
        if not isinstance(value, dict):
            raise InputError(
                self.where(row), expected="a JSON object", got=_excerpt(line), remedy="write {...} on each line"
            )
        return value

    def where(self, row: int) -> str:
        """File and line; lines are counted from 1, as editors do."""
        return f"{self.path}: line {row + 1}"

    def _mapped(self) -> mmap.mmap:
        # a map, unlike a file, has no position that forked workers would share
        if self._map is None:
            with self.path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return self._map


class Parquet:
    """A Parquet file, read through an uncompressed Arrow copy that is mapped into memory.

    Parquet has no cheap access to single rows, which a shuffled order needs. The copy is made once, in a hidden file
    beside the table (``.NAME.arrow``), and made again when the table changed.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._copy = path.with_name(f".{path.name}.arrow")
        self._reader: pa.RecordBatchFileReader | None = None
        self._starts = list[int]()
        try:
            self._schema = pq.read_schema(path)
        except pa.ArrowInvalid as error:
            got = " ".join(str(error).split())
            raise InputError(path, expected="a Parquet file", got=got, remedy="write it again") from error
        self._rows = pq.read_metadata(path).num_rows
        # here and not on first use, so that workers find it made
        if not self._is_fresh():
            self._write_copy()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_reader": None}

    def __len__(self) -> int:
        return int(self._rows)

    def columns(self) -> list[str]:
        """Columns of the schema."""
        return list(self._schema.names)

    def record(self, row: int) -> dict[str, Any]:
        """The values of a row, as plain Python."""
        reader = self._mapped()
        batch = bisect.bisect_right(self._starts, row) - 1
        values: list[dict[str, Any]] = reader.get_batch(batch).slice(row - self._starts[batch], 1).to_pylist()
        return values[0]

    def where(self, row: int) -> str:
        """File and row; rows are counted from 0."""
        return f"{self.path}: row {row}"

    def _mapped(self) -> pa.RecordBatchFileReader:
        if self._reader is None:
            self._reader = pa.ipc.open_file(pa.memory_map(str(self._copy)))
            sizes = (self._reader.get_batch(i).num_rows for i in range(self._reader.num_record_batches))
            self._starts = _starts_of(sizes)
        return self._reader

    def _stamp(self) -> dict[str, str]:
        stat = self.path.stat()
        return {"source": f"{stat.st_size} bytes, {stat.st_mtime_ns} ns"}

    def _is_fresh(self) -> bool:
        if not self._copy.exists():
            return False
        metadata: Mapping[bytes, bytes] = pa.ipc.open_file(pa.memory_map(str(self._copy))).schema.metadata
        return metadata.get(b"source") == self._stamp()["source"].encode()

    def _write_copy(self) -> None:
        schema = self._schema.with_metadata(self._stamp())
        batches = pq.ParquetFile(self.path).iter_batches(batch_size=_BATCH_ROWS, use_threads=False)
        try:
            with whole_file(self._copy) as part, pa.ipc.new_file(str(part), schema) as writer:
                for batch in batches:
                    writer.write_batch(batch.replace_schema_metadata(schema.metadata))
        except OSError as error:
            remedy = "free space, allow writing there, or use a .jsonl table"
            raise InputError(self._copy, expected="room for a copy", got=error.strerror, remedy=remedy) from error


def _starts_of(sizes: Iterable[int]) -> list[int]:
    """Where each stretch begins: the sums of the sizes before it."""
    return list(accumulate(sizes, initial=0))[:-1]


def _excerpt(line: bytes) -> str:
    text = line.decode(errors="replace").strip()
    return f"'{text[:40]}...'" if len(text) > 43 else f"'{text}'"
