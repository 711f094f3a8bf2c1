"""What formats write: rows, files that appear together or not at all, and the names of media in them."""

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_prep.formats import Record
from data_prep.formats.made import Made
from mmembed.data.media_root import MediaRoot
from mmembed.errors import InputError
from mmembed.files import whole_file
from mmembed.items import ImageSource, Item, Pair, VideoSource

Pairs = Callable[[], Iterator[tuple[str, Pair]]]
"""Goes through pairs from the first, each with the place where it was read: file and row."""
Items = Callable[[], Iterator[tuple[str, str, Item]]]
"""Goes through named items from the first: place, name and item."""


@dataclass(frozen=True)
class MediaOut:
    """How rows name media.

    Args:
        folder: what the names are relative to.
        made: takes pictures that come as bytes.
        absolute: whole paths, not relative ones.
    """

    folder: Path
    made: Made
    absolute: bool = False

    def name(self, source: ImageSource | VideoSource, where: str) -> str:
        """What a row calls a medium.

        Raises:
            InputError: it is not inside the folder, or no picture.
        """
        path = str(self.made.keep(source, where).absolute()) if isinstance(source, bytes) else str(source)
        if self.absolute:
            return os.path.abspath(path)  # noqa: PTH100 - links are named as they are
        try:
            return MediaRoot(self.folder.absolute()).relative(path, where)
        except InputError as error:
            remedy = "give a folder that holds the media with --output-media, or say --absolute-paths"
            raise InputError(where, expected=error.expected, got=f"'{path}'", remedy=remedy) from None


@dataclass
class Writing:
    """An output to be written.

    Args:
        path: file or folder of the rows.
        pairs: what the format can hold, of every row.
        media: how rows name media.
        options: of the format, by name.
        counts: takes in words what was made for want of it.
        items: documents of a corpus that is written, whether or not a pair names them.
    """

    path: Path
    pairs: Pairs
    media: MediaOut
    options: Mapping[str, Any] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    items: Items = lambda: iter(())

    def rows(self, make: Callable[[Pair], Record]) -> Iterator[Record]:
        """The row of each pair, complaints placed.

        Raises:
            InputError: file, row and field of what cannot be written.
        """
        for where, pair in self.pairs():
            try:
                row = make(pair)
            except InputError as error:
                raise error.within(where) from None
            yield row

    def write_lines(self, rows: Iterator[Record]) -> None:
        """Write rows as JSON lines, whole or not at all."""
        with whole_files(self.path) as (part,), JsonLines(part) as lines:
            for row in rows:
                lines.write(row)


class JsonLines:
    """JSON objects, one a line, written to a file as they come."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8")

    def __enter__(self) -> "JsonLines":
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def write(self, row: Record) -> None:
        """Add a row."""
        self._file.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")


@contextmanager
def whole_files(*paths: Path) -> Iterator[tuple[Path, ...]]:
    """Temporary siblings to write to; they take the names of ``paths`` only if the block succeeds."""
    with ExitStack() as stack:
        yield tuple(stack.enter_context(whole_file(path)) for path in paths)
