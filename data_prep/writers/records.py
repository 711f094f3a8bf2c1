"""Pictures with captions, as they are given."""

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from data_prep.writers.triplets import Captioned
from mmembed.data.stores import RowStore, open_store
from mmembed.data.tables import PairTable
from mmembed.errors import InputError, nearest
from mmembed.items import Image

FIELDS = ("id", "image", "caption")


def read_captions(path: Path, limit: int | None = None) -> list[Captioned]:
    """The records of a file: ``{"id", "image", "caption"}`` a line, or a table of pairs of a picture and its caption.

    Args:
        path: ``.jsonl``, or ``.parquet`` for a table of pairs.
        limit: only so many from the beginning.

    Raises:
        InputError: a row that lacks something, or an id again: file, line and field.
    """
    store = open_store(path)
    columns = store.columns()
    rows = _of_table(PairTable(path)) if "query" in columns else _of_lines(store)
    found, seen = list[Captioned](), set[str]()
    for where, record in islice(rows, limit):
        if record.id in seen:
            raise InputError(f"{where}: id", expected="each id once", got=f"'{record.id}' again", remedy="rename one")
        seen.add(record.id)
        found.append(record)
    return found


def _of_lines(store: RowStore) -> Iterator[tuple[str, Captioned]]:
    for row in range(len(store)):
        record, where = store.record(row), store.where(row)
        for name in record:
            if name not in FIELDS:
                raise InputError(
                    f"{where}: {name}", expected="id, image and caption", got="another field",
                    remedy=nearest(name, FIELDS),
                )  # fmt: skip
        yield where, Captioned(*(_text(record.get(name), f"{where}: {name}") for name in FIELDS))


def _of_table(table: PairTable) -> Iterator[tuple[str, Captioned]]:
    folder = table.path.parent.absolute()
    for row in range(len(table)):
        pair, where = table[row], table.where(row)
        sides = (pair.query, pair.positives[0])
        pictures = [medium for item in sides for medium in item.media]
        texts = [item.text for item in sides if not item.media]
        if len(pictures) != 1 or not isinstance(pictures[0], Image) or not isinstance(pictures[0].source, str):
            raise InputError(
                where, expected="one picture by its path, in query or positive", got=f"{len(pictures)} media",
                remedy="give a table of pictures and their captions",
            )  # fmt: skip
        if not texts or not texts[0].strip() or any(item.text.strip() for item in sides if item.media):
            raise InputError(
                where, expected="a caption alone on the other side", got="none, or a text beside the picture",
                remedy="give a table of pictures and their captions",
            )  # fmt: skip
        image = Path(os.path.relpath(pictures[0].source, folder)).as_posix()
        yield where, Captioned(pair.query_id or f"{row}", image, texts[0])


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        got = "nothing" if value is None else repr(value)
        raise InputError(where, expected="words", got=got, remedy="write a string, or leave the record out")
    return value
