"""Pair tables and item tables on disk: JSON lines or Parquet, media by path or as bytes, rows by number.

A pair table holds what training learns from; :mod:`mmembed.data.rows` describes a row. An item table holds what is
embedded or searched: a name (``id``) beside the fields of an item. :mod:`mmembed.data.arrow` has the columns of their
Parquet files.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Generic, TypeAlias, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from mmembed.data import arrow
from mmembed.data.media_root import MediaRoot
from mmembed.data.rows import id_and_item_of, pair_of, record_of_item, record_of_pair
from mmembed.data.stores import open_store
from mmembed.data.values import json_value
from mmembed.errors import InputError, nearest
from mmembed.files import whole_file
from mmembed.items import Item, Pair

T = TypeVar("T")
Record: TypeAlias = dict[str, Any]

_GROUP_ROWS = 512
"""Rows written to Parquet at a time: bounds the memory of a table with pictures inside."""


class Table(ABC, Generic[T]):
    """Rows of a file by number; picklable, and nothing but where its lines start is held in memory.

    Args:
        path: a .jsonl or .parquet file.
        media_root: folder of the media, which their paths may not leave; None is the folder of the file.

    Raises:
        InputError: the file is missing, empty or not a table, or a column is missing.
    """

    required: Sequence[str]

    def __init__(self, path: Path | str, *, media_root: Path | str | None = None) -> None:
        self.path = Path(path)
        self.name = self.path.stem
        self.root = media_root_of(self.path, media_root)
        self._store = open_store(self.path)
        columns = self._store.columns()
        for column in self.required:
            if column not in columns:
                got = f"columns {', '.join(columns)}"
                raise InputError(f"{path}: {column}", expected="this column", got=got, remedy=nearest(column, columns))

    def __len__(self) -> int:
        return len(self._store)

    def __getitem__(self, row: int) -> T:
        if not 0 <= row < len(self):
            raise IndexError(f"{self.path}: row {row} of {len(self)}")
        record = self._store.record(row)
        try:
            return self._decode(record, columnar=_is_columnar(self.path))
        except InputError as error:
            raise error.within(self.where(row)) from None

    def __iter__(self) -> Iterator[T]:
        return (self[row] for row in range(len(self)))

    def where(self, row: int) -> str:
        """What errors call a row: the file, and its line (from 1) or row (from 0)."""
        return self._store.where(row)

    @abstractmethod
    def _decode(self, record: Record, *, columnar: bool) -> T: ...


class PairTable(Table[Pair]):
    """The pairs of a file; a bad row is an InputError that names file, row and field when it is asked for."""

    required = ("query", "positives")

    def _decode(self, record: Record, *, columnar: bool) -> Pair:
        return pair_of(arrow.pair_of_columns(record) if columnar else record, self.root)


class ItemTable(Table[tuple[str, Item]]):
    """The named items of a file; a bad row is an InputError that names file, row and field when it is asked for."""

    required = ("id",)

    def _decode(self, record: Record, *, columnar: bool) -> tuple[str, Item]:
        return id_and_item_of(arrow.item_of_columns(record) if columnar else record, self.root)


def open_table(path: Path | str, *, media_root: Path | str | None = None) -> PairTable:
    """Open a pair table; see :class:`Table` for arguments and errors."""
    return PairTable(path, media_root=media_root)


def read_items(path: Path | str, *, media_root: Path | str | None = None) -> Iterator[tuple[str, Item]]:
    """The names and items of an item table, in order; see :class:`Table` for arguments and errors."""
    return iter(ItemTable(path, media_root=media_root))


def write_pairs(path: Path | str, pairs: Iterable[Pair], *, media_root: Path | str | None = None) -> None:
    """Write a pair table, whole or not at all; the suffix chooses the format.

    Args:
        path: a .jsonl or .parquet file.
        pairs: at least one; they are streamed. All but their ``source`` is written.
        media_root: folder that media paths become relative to, and must lie in; None is the folder of ``path``.

    Raises:
        InputError: no pair, another suffix, an open picture, a path outside the root, or a score that is not finite.
    """
    root, full = media_root_of(path, media_root), _is_columnar(path)
    records = (record_of_pair(pair, root, full=full) for pair in pairs)
    _write(Path(path), records, arrow.columns_of_pair, arrow.PAIR_SCHEMA)


def write_items(path: Path | str, items: Iterable[tuple[str, Item]], *, media_root: Path | str | None = None) -> None:
    """Write an item table of names and items; see :func:`write_pairs` for arguments and errors."""
    root, full = media_root_of(path, media_root), _is_columnar(path)
    records = (record_of_item(name, item, root, full=full) for name, item in items)
    _write(Path(path), records, arrow.columns_of_item, arrow.ITEM_SCHEMA)


def media_root_of(path: Path | str, media_root: Path | str | None) -> MediaRoot:
    """The media root of a table: the one given, or the folder of its file."""
    return MediaRoot(Path(path).parent.absolute() if media_root is None else Path(media_root).absolute())


def _is_columnar(path: Path | str) -> bool:
    return Path(path).suffix == ".parquet"


def _write(path: Path, records: Iterable[Record], columns: Callable[[Record], Record], schema: pa.Schema) -> None:
    if path.suffix not in (".jsonl", ".parquet"):
        raise InputError(
            path, expected="a .jsonl or .parquet file", got=f"'{path.suffix}'", remedy="choose one of them"
        )
    with whole_file(path) as part:
        numbered = _numbered(path, records)
        if _is_columnar(path):
            _write_parquet(part, map(columns, numbered), schema)
        else:
            _write_lines(part, numbered)


def _numbered(path: Path, records: Iterable[Record]) -> Iterator[Record]:
    """The records, complaints among them placed in the file."""
    row = 0
    try:
        for record in records:
            yield record
            row += 1
    except InputError as error:
        raise error.within(f"{path}: row {row}") from None
    if row == 0:
        raise InputError(path, expected="at least one row", got="none", remedy="leave the table out")


def _write_lines(part: Path, records: Iterable[Record]) -> None:
    with part.open("w", encoding="utf-8") as file:
        for record in records:
            file.write(json.dumps(record, ensure_ascii=False, allow_nan=False, default=json_value) + "\n")


def _write_parquet(part: Path, records: Iterator[Record], schema: pa.Schema) -> None:
    with pq.ParquetWriter(part, schema) as writer:
        while group := list(islice(records, _GROUP_ROWS)):
            writer.write_table(pa.Table.from_pylist(group, schema=schema))
