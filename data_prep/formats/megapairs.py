"""MegaPairs rows (arXiv:2412.14475): a picture, several changes of it, what it becomes, and hard negatives.

Each change is a pair. Pairs in a row that share all pictures are one row when they are written: a row is read back as
it was written, and of two equal rows side by side that differ in their changes alone one is made.
"""

from collections.abc import Iterator
from itertools import groupby

from data_prep.converters.fields import text, texts
from data_prep.formats import Format, Holds, Record, Shape
from data_prep.formats.inputs import Reading, names_of
from data_prep.formats.outputs import Writing
from mmembed.errors import InputError
from mmembed.items import Image, Item, Negative, Pair

COLUMNS = ("q_img", "q_text", "t_img", "hns")
_HOLDS = Holds(query=Shape(kinds=("text", "image"), images=1), target=Shape(kinds=("image",), images=1))


def read(reading: Reading) -> Iterator[Pair]:
    """The pairs of MegaPairs rows, one for each change."""

    def shown(path: str, where: str) -> Item:
        return Item((Image(reading.media.find(path, where)),), verbatim=False)

    def make(row: Record) -> list[Pair]:
        picture, wanted = shown(text(row, "q_img"), "q_img"), shown(text(row, "t_img"), "t_img")
        wrong = tuple(Negative(shown(path, f"hns[{i}]")) for i, path in enumerate(names_of(row, "hns", none=True)))
        changes = texts(row, "q_text")
        return [Pair(Item((*picture.media, c), verbatim=False), (wanted,), wrong) for c in changes]

    return reading.pairs(make, COLUMNS, COLUMNS[:3])


def write(writing: Writing) -> None:
    """Write MegaPairs rows, pairs side by side that share their pictures as one."""

    def picture(item: Item, where: str) -> str:
        return writing.media.name(item.media[0].source, f"{where}.image")

    def make(pair: Pair) -> Record:
        if not pair.query.media or not pair.query.text:
            expected, got = "a picture and its change", f"{pair.query!r:.80}"
            raise InputError("query", expected=expected, got=got, remedy="leave the row out, or choose another format")
        wrong = [picture(negative.item, f"negatives[{i}].item") for i, negative in enumerate(pair.negatives)]
        words, wanted = pair.query.text, picture(pair.positives[0], "positives[0]")
        return {"q_img": picture(pair.query, "query"), "q_text": words, "t_img": wanted, "hns": wrong}

    def grouped() -> Iterator[Record]:
        for _, rows in groupby(writing.rows(make), lambda row: (row["q_img"], row["t_img"], row["hns"])):
            alike = list(rows)
            yield {**alike[0], "q_text": [row["q_text"] for row in alike]}

    writing.write_lines(grouped())


FORMAT = Format("MegaPairs rows of BGE-VL: q_img, q_text (a list), t_img, hns", _HOLDS, read, write)
"""MegaPairs' rows."""
