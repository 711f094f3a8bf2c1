"""MMEB-train: rows of a query and its positive, each a text and perhaps a picture (arXiv:2410.05160).

The instructions stand inside the texts, and ``<|image_1|>`` where the picture goes; both stay where they are. In WebQA
the queries have the word but no picture: it stays too, as the word for a picture that is not there.
"""

from collections.abc import Iterator

from data_prep.converters import Converter, Media, Record
from data_prep.converters.published import pairs_of, verbatim
from data_prep.source import SourceSet
from mmembed.errors import InputError
from mmembed.items import Image, Item, Negative, Pair

TOKEN = "<|image_1|>"
"""Where a row's picture goes."""


def mmeb_pairs(rows: Iterator[Record], row_set: SourceSet, media: Media) -> Iterator[Pair | InputError]:
    """Pairs of MMEB-train; a row with an empty query or positive is put aside, as the published parser skips it.

    Negatives, where a row has one, are kept; the published training drops them, which is the recipe's choice.
    """

    def make(row: Record, where: str) -> Pair:
        negative = row.get("neg_text") or row.get("neg_image_path")
        return Pair(
            query=_item(row, "qry", "qry_image_path", media, where),
            positives=(_item(row, "pos_text", "pos_image_path", media, where),),
            negatives=(Negative(_item(row, "neg_text", "neg_image_path", media, where)),) if negative else (),
        )

    return pairs_of(rows, make)


def _item(row: Record, text_column: str, path_column: str, media: Media, where: str) -> Item:
    text, path = row.get(text_column) or "", row.get(path_column)
    if not text and not path:
        remedy = "nothing: the published parser skips it too"
        raise InputError(f"{where}: {text_column}", expected="a text or a picture", got="neither", remedy=remedy)
    if not path:
        return _stray(text, f"{where}: {text_column}") if TOKEN in text else Item((text,))
    picture = Image(media.find(path, f"{where}: {path_column}"))
    # some negatives of VisDial are a picture without words
    return verbatim(text or TOKEN, TOKEN, [picture], f"{where}: {text_column}")


def _stray(text: str, where: str) -> Item:
    """The item of a text with the word for a picture, but no picture; words before it are the instruction."""
    before, *after = text.split(TOKEN)
    if len(after) != 1 or not (before or after[0]):
        remedy = "mend the row, or leave it out"
        raise InputError(where, expected=f"words and '{TOKEN}' once, without a picture", got=f"'{text}'", remedy=remedy)
    if not before:
        return Item((after[0],), layout="{image_token}{text}")
    if not after[0]:
        return Item((before,), layout="{text}{image_token}")
    return Item((after[0],), instruction=before, layout="{instruction}{image_token}{text}")


CONVERTERS: dict[str, Converter] = {
    "mmeb_pairs": Converter(pairs=mmeb_pairs, columns={"rows": ("qry", "qry_image_path", "pos_text", "pos_image_path")})
}
"""Every converter by its name, as sources name it."""
