"""MMEB-train: rows of a query and its positive, each a text and perhaps a picture (arXiv:2410.05160).

The instructions stand inside the texts, and ``<|image_1|>`` where the picture goes; both stay where they are. In WebQA
the queries have the word but no picture: it stays too, as the word for a picture that is not there.
"""

from collections.abc import Iterator

from data_prep.converters import Converter, Media, Record
from data_prep.converters.fields import maybe_text
from data_prep.converters.published import pairs_of, stray, verbatim
from data_prep.source import SourceSet
from mmembed.errors import InputError
from mmembed.items import Image, Item, Negative, Pair

TOKEN = "<|image_1|>"
"""Where a row's picture goes."""


def mmeb_pairs(rows: Iterator[Record], row_set: SourceSet, media: Media) -> Iterator[Pair | InputError]:
    """Pairs of MMEB-train; a row with an empty query or positive is put aside, as the published parser skips it.

    Negatives, where a row has one, are kept; the published training drops them, which is the recipe's choice.
    """

    def make(row: Record) -> Pair:
        query = _item(row, "qry", "qry_image_path", media)
        positive = _item(row, "pos_text", "pos_image_path", media)
        return Pair(query, (positive,), _negatives(row, media))

    return pairs_of(rows, make)


def _negatives(row: Record, media: Media) -> tuple[Negative, ...]:
    """A row's negative, if it has one; in VisDial some are a picture without words."""
    text, path = maybe_text(row, "neg_text"), maybe_text(row, "neg_image_path")
    if path and not text:
        return (Negative(Item((Image(media.find(path, "neg_image_path")),))),)
    return (Negative(_item(row, "neg_text", "neg_image_path", media)),) if text else ()


def _item(row: Record, text_column: str, path_column: str, media: Media) -> Item:
    text, path = maybe_text(row, text_column), maybe_text(row, path_column)
    if not text and not path:
        remedy = "nothing: the published parser skips it too"
        raise InputError(text_column, expected="a text or a picture", got="neither", remedy=remedy)
    if path:
        return verbatim(text, TOKEN, [Image(media.find(path, path_column))], text_column)
    return stray(text, TOKEN, text_column) if TOKEN in text else Item((text,))


CONVERTERS: dict[str, Converter] = {
    "mmeb_pairs": Converter(pairs=mmeb_pairs, columns={"rows": ("qry", "qry_image_path", "pos_text", "pos_image_path")})
}
"""Every converter by its name, as sources name it."""
