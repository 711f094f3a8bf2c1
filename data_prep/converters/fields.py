"""Fields of rows, checked: one of another kind is refused by the name of its column.

The row itself is named around them: by :func:`data_prep.converters.published.pairs_of` and :func:`in_row`.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import Any

from data_prep.converters import Record
from mmembed.errors import InputError
from mmembed.items import Image

REMEDY = "mend the row, or download the file again"
PICTURES = (".jpg", ".png", ".jpeg")
"""Suffixes of pictures that rows name without one, of which copies have one or another."""


@contextmanager
def in_row(number: int, part: str = "") -> Iterator[None]:
    """Complaints inside name the row, and the part of the set where it has several."""
    try:
        yield
    except InputError as error:
        raise error.within(f"{part and f'{part}: '}row {number}") from None


def text(row: Record, column: str, *, empty: bool = False) -> str:
    """A text, which may be empty only where that is said.

    Raises:
        InputError: there is none.
    """
    return _text(row.get(column), column, empty)


def maybe_text(row: Record, column: str) -> str:
    """A text that may be absent, or empty, which is the same.

    Raises:
        InputError: something else is there.
    """
    return "" if row.get(column) is None else text(row, column, empty=True)


def texts(row: Record, column: str, *, empty: bool = False) -> list[str]:
    """A list of one text or more.

    Raises:
        InputError: no list, none in it, or something else.
    """
    values = _list(row, column)
    # a set may have a million of them: their places are spelled out only where one is wrong
    if not all(isinstance(value, str) and (value or empty) for value in values):
        for place, value in enumerate(values):
            _text(value, f"{column}[{place}]", empty)
    return values


def two_texts(row: Record, column: str) -> list[str]:
    """A list of two texts, of which one may be empty.

    Raises:
        InputError: another number of them, or two without words.
    """
    values = texts(row, column, empty=True)
    if len(values) != 2 or not any(value.strip() for value in values):
        raise InputError(column, expected="two texts, one of them not empty", got=values, remedy=REMEDY)
    return values


def first_text(row: Record, column: str) -> str:
    """A text, or the first of several, of which the others do not count.

    Raises:
        InputError: there is none.
    """
    return _text(_list(row, column)[0], f"{column}[0]") if isinstance(row.get(column), list) else text(row, column)


def texts_within(row: Record, column: str, key: str, *, none: bool = False) -> list[str]:
    """The texts that a list of records holds under a key; an empty list is taken only where that is said.

    Raises:
        InputError: no list, none in it, or a record without its text.
    """
    values = _list(row, column, none=none)
    return [
        _text(value.get(key) if isinstance(value, Mapping) else value, f"{column}[{place}].{key}")
        for place, value in enumerate(values)
    ]


def identifier(row: Record, column: str) -> str:
    """What names a row, a clip or a page: a text or a number.

    Raises:
        InputError: there is none.
    """
    return _identifier(row.get(column), column)


def first_identifier(row: Record, column: str) -> str:
    """The first of a list of names, of which the others do not count.

    Raises:
        InputError: there is none.
    """
    return _identifier(_list(row, column)[0], f"{column}[0]")


def file_name(row: Record, column: str) -> str:
    """The last part of a path.

    Raises:
        InputError: there is none, or it names no file.
    """
    path = text(row, column)
    name = PurePosixPath(path).name
    if name in ("", ".."):
        raise InputError(column, expected="the path of a file", got=_short(path), remedy=REMEDY)
    return name


def picture(row: Record, column: str) -> Image:
    """The picture of a Parquet column of images, ``{"bytes", "path"}``.

    Raises:
        InputError: there are no bytes.
    """
    return _picture(row.get(column), column)


def pictures(row: Record, column: str) -> list[Image]:
    """A list of one picture or more; see :func:`picture`.

    Raises:
        InputError: no list, none in it, or one without bytes.
    """
    return [_picture(value, f"{column}[{place}]") for place, value in enumerate(_list(row, column))]


def _text(value: Any, where: str, empty: bool = False) -> str:
    if not isinstance(value, str) or not (value or empty):
        got = "an empty one" if value == "" else _short(value)
        raise InputError(where, expected="a text", got=got, remedy=REMEDY)
    return value


def _identifier(value: Any, where: str) -> str:
    if isinstance(value, bool) or not isinstance(value, int | str) or value == "":
        got = "an empty one" if value == "" else _short(value)
        raise InputError(where, expected="a number or a name", got=got, remedy=REMEDY)
    return str(value)


def _list(row: Record, column: str, *, none: bool = False) -> list[Any]:
    values = row.get(column)
    if not isinstance(values, list) or not (values or none):
        got = "an empty one" if values == [] else _short(values)
        raise InputError(column, expected="a list", got=got, remedy=REMEDY)
    return values


def _picture(value: Any, where: str) -> Image:
    data = value.get("bytes") if isinstance(value, Mapping) else None
    if not isinstance(data, bytes) or not data:
        raise InputError(where, expected="a picture with its bytes", got=_short(value), remedy=REMEDY)
    return Image(data)


def _short(value: object) -> str:
    return f"{value!r:.80}"
