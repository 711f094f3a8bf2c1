"""What formats read: rows one by one with their places, and the media that they name."""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_prep.converters.fields import text
from data_prep.formats import Record
from data_prep.formats.made import Made
from data_prep.formats.rows import Placed, rows_in, rows_of
from mmembed.data.media_root import MediaRoot
from mmembed.errors import InputError, nearest
from mmembed.items import Pair
from mmembed.progress import track


@dataclass(frozen=True)
class MediaIn:
    """Where the media of the rows lie.

    Args:
        folder: what paths in the rows are relative to.
        within: what media may not leave: the media root of the table that is written.
        made: takes pictures that come as bytes.
        missing: media need not be there.
    """

    folder: Path
    within: MediaRoot
    made: Made
    missing: bool = False

    def find(self, name: str, where: str) -> str:
        """The absolute path of a medium.

        Raises:
            InputError: it is on the network, not there, or not inside the media root of the table.
        """
        if not name or "://" in name or name.startswith("data:"):
            remedy = "download it, and name its file"
            raise InputError(where, expected="the path of a file", got=f"{name!r:.80}", remedy=remedy)
        path = os.path.normpath(self.folder.absolute() / name)
        try:
            self.within.relative(path, where)
        except InputError as error:
            remedy = "give a folder that holds media and table with --output-media"
            raise InputError(where, expected=error.expected, got=f"'{path}'", remedy=remedy) from None
        if not self.missing and not os.path.exists(path):  # noqa: PTH110 - ten times as fast as Path
            remedy = "check it and --input-media, or say --allow-missing-media"
            raise InputError(where, expected="a file", got=f"no such file '{path}'", remedy=remedy)
        return path

    def keep(self, data: bytes, where: str) -> str:
        """The absolute path of a picture that came as bytes; see :class:`Made`."""
        return str(self.made.keep(data, where).absolute())


@dataclass
class Reading:
    """An input to be read.

    Args:
        path: file or folder of the rows.
        media: where their media lie.
        drop: fields that are left out where they are there.
        options: of the format, by name.
        limit: rows to read; None is all.
        counts: takes in words what was left out.
    """

    path: Path
    media: MediaIn
    drop: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    limit: int | None = None
    counts: Counter[str] = field(default_factory=Counter)

    def pairs(
        self, make: Callable[[Record], Pair | Iterable[Pair]], known: Iterable[str], required: Iterable[str]
    ) -> Iterator[Pair]:
        """What ``make`` gives of each row, in order.

        Args:
            make: a row to a pair or several.
            known: fields that it reads.
            required: those of them that every row must have.

        Raises:
            InputError: file, row and field of what is wrong.
        """
        known, required = tuple(known), tuple(required)

        def checked(row: Record) -> Pair | Iterable[Pair]:
            self.refuse_unknown(row, known)
            check_row(row, required)
            return make(row)

        return self.checked_pairs(checked)

    def checked_pairs(self, make: Callable[[Record], Pair | Iterable[Pair]]) -> Iterator[Pair]:
        """The same, where ``make`` looks at the fields itself."""
        for where, row in self.rows():
            try:
                made = make(row)
                pairs = (made,) if isinstance(made, Pair) else tuple(made)
            except InputError as error:
                raise error.within(where) from None
            yield from pairs

    def rows(self) -> Iterator[Placed]:
        """The rows of the input, with their places and a progress bar."""
        total = rows_in(self.path)
        rows = rows_of(self.path)
        # the limit first: the row behind it is not even read
        limited = (placed for _, placed in zip(range(self.limit), rows, strict=False)) if self.limit else rows
        for where, row in track(limited, "read", min(total, self.limit or total)):
            yield where, self.less(row)

    def less(self, row: Record, whose: str = "") -> Record:
        """A row without the fields that are left out, which are counted; ``whose`` says of what they are."""
        for name in self.drop:
            self.counts[f"{name}{whose} left out"] += row.get(name) is not None and row[name] != []
        return {name: value for name, value in row.items() if name not in self.drop} if self.drop else row

    def refuse_unknown(self, row: Record, known: Iterable[str]) -> None:
        """Refuse a field that no pair table holds, unless it is empty.

        Raises:
            InputError: the field is named.
        """
        for name, value in row.items():
            if name not in known and value is not None and value != []:
                expected, got = "a field that a pair table can hold", f"{value!r:.60}"
                remedy = f"say --drop {name} to leave it out, or mend the name ({nearest(name, known)})"
                raise InputError(name, expected=expected, got=got, remedy=remedy)


def check_row(row: Record, required: Iterable[str]) -> None:
    """Refuse a row that lacks a field.

    Raises:
        InputError: the field that is missing, and the nearest that is there.
    """
    for name in required:
        if name not in row:
            raise InputError(name, expected="this field", got="none", remedy=nearest(name, row))


def names_of(row: Record, column: str, *, none: bool = False) -> tuple[str, ...]:
    """A list of names; an empty or absent one is taken only where that is said.

    Raises:
        InputError: no list, or something else than a name in it.
    """
    values = row.get(column)
    if none and values is None:
        return ()
    if not isinstance(values, list) or not (values or none):
        got = "an empty one" if values == [] else f"{values!r:.80}"
        raise InputError(column, expected="a list of names", got=got, remedy="mend the row")
    named = {f"{column}[{i}]": value for i, value in enumerate(values)}
    return tuple(text(named, place) for place in named)


def maybe_name(row: Record, column: str) -> str | None:
    """A text that is absent where it is null, not there, or empty.

    Raises:
        InputError: something else is there.
    """
    value = row.get(column)
    return None if value is None or value == "" else text(row, column)
