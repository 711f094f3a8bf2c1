"""What converters of training rows share: items that read exactly as the published parsers write them."""

from collections.abc import Callable, Iterator, Sequence

from data_prep.converters import Record
from mmembed.errors import InputError
from mmembed.items import Item, Media, Pair


def pairs_of(rows: Iterator[Record], make: Callable[[Record], Pair]) -> Iterator[Pair | InputError]:
    """What ``make`` gives of each row, in order; or the error that says of which row there is no pair, and why."""
    for number, row in enumerate(rows):
        try:
            yield make(row)
        except InputError as error:
            yield error.within(f"row {number}")


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


def stray(text: str, token: str, where: str) -> Item:
    """The item of a text in which the word for a picture may stand once, without a picture; its layout says where.

    Words before it are the instruction, for want of another place.

    Raises:
        InputError: the word stands there several times, or alone.
    """
    before, *after = text.split(token)
    if not after and text:
        return Item((text,), layout="{text}")
    if len(after) != 1 or not (before or after[0]):
        got, remedy = f"'{text}'", "mend the row, or leave it out"
        raise InputError(where, expected=f"words and '{token}' at most once", got=got, remedy=remedy)
    if not before:
        return Item((after[0],), layout="{image_token}{text}")
    if not after[0]:
        return Item((before,), layout="{text}{image_token}")
    return Item((after[0],), instruction=before, layout="{instruction}{image_token}{text}")
