"""Documents by their ids, read from the corpora that rows refer to.

Ids and where their lines start are kept in a temporary file (:mod:`data_prep.formats.ids`), a document only while it is
read: a million candidates of M-BEIR take 23 MB there, and none of the memory.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path

from data_prep.converters.fields import text
from data_prep.formats import Record
from data_prep.formats.ids import Names
from data_prep.formats.rows import json_object, rows_in
from mmembed.errors import InputError
from mmembed.items import Item
from mmembed.progress import track

MakeItem = Callable[[Record], Item]
_FILE = 1 << 48
"""Where a line starts is counted from the number of its file times this."""


class Corpus:
    """The documents of JSON lines by their ids; used as a context.

    Args:
        paths: the files; an id may stand there again only with the same document.
        column: the field of the id.
        make: a row to its item.

    Raises:
        InputError: no such file, a line that is none, or an id that is missing or names two documents.
    """

    def __init__(self, paths: Sequence[Path], column: str, make: MakeItem) -> None:
        for path in paths:
            if path.suffix != ".jsonl" or not path.is_file():
                got = f"'{path.suffix}'" if path.is_file() else "no such file"
                remedy = "check --corpus; write another kind of file as JSON lines"
                raise InputError(path, expected="a .jsonl file", got=got, remedy=remedy)
        self.paths, self._column, self._make = tuple(paths), column, make
        self._names = Names()
        self._files = [path.open("rb") for path in paths]
        # several rows in a row often name the same document
        self.item = lru_cache(maxsize=1024)(self._item)

    def __enter__(self) -> "Corpus":
        try:
            self._index()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        for file in self._files:
            file.close()
        self._names.__exit__()

    def _index(self) -> None:
        for number, path in enumerate(self.paths):
            start = number * _FILE
            with path.open("rb") as file:
                for line_number, line in enumerate(track(file, f"index {path.name}", rows_in(path)), 1):
                    if line.strip():
                        self._add(line, start, f"{path}: line {line_number}", line_number)
                    start += len(line)

    def _add(self, line: bytes, start: int, where: str, number: int) -> None:
        row = json_object(line, where)
        try:
            name = text(row, self._column)
        except InputError as error:
            raise error.within(where) from None
        known = self._names.add(name, start, number)
        if known is not None and self._read(*known)[1] != row:
            expected, got = "each id for one document", f"'{name}', that of {self._read(*known)[0]}, for another"
            raise InputError(f"{where}: {self._column}", expected=expected, got=got, remedy="give one another id")

    def _read(self, start: int, number: int) -> tuple[str, Record]:
        file = self._files[start // _FILE]
        file.seek(start % _FILE)
        where = f"{self.paths[start // _FILE]}: line {number}"
        return where, json_object(file.readline(), where)

    def _item(self, name: str) -> Item | None:
        """The document of an id; None where no file has it. The last ones are kept."""
        known = self._names.get(name)
        return None if known is None else self._made(*self._read(*known))

    def _made(self, where: str, row: Record) -> Item:
        try:
            return self._make(row)
        except InputError as error:
            raise error.within(where) from None

    def find(self, name: str, where: str) -> Item:
        """The document of an id.

        Raises:
            InputError: no file has it, or it is no document.
        """
        item = self.item(name)
        if item is None:
            files = ", ".join(map(str, self.paths)) or "no corpus"
            remedy = "name every file of documents with --corpus, or take the id out"
            raise InputError(where, expected=f"an id of {files}", got=f"'{name}'", remedy=remedy)
        return item

    def items(self) -> Iterator[tuple[str, Item]]:
        """All documents, in the order of the files, each id once."""
        for number, path in enumerate(self.paths):
            start = number * _FILE
            with path.open("rb") as file:
                for line_number, line in enumerate(track(file, f"write documents of {path.name}", rows_in(path)), 1):
                    if line.strip():
                        where = f"{path}: line {line_number}"
                        row = json_object(line, where)
                        name = str(row[self._column])
                        if self._names.get(name) == (start, line_number):
                            yield name, self._made(where, row)
                    start += len(line)
