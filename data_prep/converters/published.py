"""What converters of training rows share: items that read exactly as the published parsers write them."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from data_prep.converters import Record
from mmembed.errors import InputError
from mmembed.items import Image, Item, Media, Pair


def pairs_of(rows: Iterator[Record], make: Callable[[Record, str], Pair]) -> Iterator[Pair | InputError]:
    """What ``make`` gives of each row and the row's name, in order; or the error that says why there is no pair."""
    for number, row in enumerate(rows):
        try:
            yield make(row, f"row {number}")
        except InputError as error:
            yield error


def verbatim(text: str, token: str, media: Sequence[Media], where: str) -> Item:
    """The item whose raw prompt is ``text``, with the media at the places of ``token``, in order.

    Raises:
        InputError: the text has another number of tokens than there are media.
    """
    pieces = text.split(token)
    if len(pieces) != len(media) + 1:
        raise InputError(
            where, expected=f"'{token}' once for each of {len(media)} media", got=f"{len(pieces) - 1} in '{text}'",
            remedy="mend the row, or leave it out: the published parser has no prompt for it",
        )  # fmt: skip
    parts = [part for pair in zip(pieces, (*media, ""), strict=True) for part in pair]
    return Item(tuple(part for part in parts if part != ""))


def picture_of(struct: Any, where: str) -> Image:
    """The picture of a Parquet column of images, ``{"bytes", "path"}``.

    Raises:
        InputError: there are no bytes.
    """
    data = struct.get("bytes") if isinstance(struct, dict) else None
    if not data:
        got = f"{struct!r:.80}"
        raise InputError(where, expected="a picture with its bytes", got=got, remedy="download the file again")
    return Image(data)


def string_of(row: Record, column: str, where: str) -> str:
    """A text column that must have a value.

    Raises:
        InputError: it has none.
    """
    value = row.get(column)
    if not isinstance(value, str):
        raise InputError(f"{where}: {column}", expected="a text", got=repr(value), remedy="mend the row")
    return value
