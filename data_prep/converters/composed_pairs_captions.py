"""Training rows of captions: of pictures, and before and after a change (InstructCIR, arXiv:2412.05756)."""

from collections.abc import Iterator

from data_prep.converters import Converter, Media, Record
from data_prep.converters.fields import identifier, text, texts_within
from data_prep.converters.published import pairs_of
from data_prep.source import SourceSet
from mmembed.errors import InputError
from mmembed.items import Item, Negative, Pair

MINER = "before"
"""Miner of the negative that is the caption before the change."""
TOKEN = "<image>"
"""Where the picture goes in a conversation."""


def image_captions(rows: Iterator[Record], row_set: SourceSet, media: Media) -> Iterator[Pair | InputError]:
    """A picture finds its caption.

    The caption is the column ``caption``, or the answer of ``conversations`` where rows are those of LLaVA's
    pre-training (arXiv:2304.08485).
    """

    def make(row: Record) -> Pair:
        query = Item.of({"image": str(media.find(text(row, "image"), "image"))})
        caption = _answer(row) if "conversations" in row else text(row, "caption")
        return Pair(query, (Item.of(caption),), query_id=identifier(row, "id") if "id" in row else "")

    return pairs_of(rows, make)


def cir_triplets(rows: Iterator[Record], row_set: SourceSet, media: Media) -> Iterator[Pair | InputError]:
    """A picture and a change find the caption after it; the caption before it is the hard negative.

    The rows are those that ``data_prep/make_cir_triplets.py`` writes.
    """

    def make(row: Record) -> Pair:
        query = {"image": str(media.find(text(row, "image"), "image")), "text": text(row, "instruction")}
        after, before = Item.of(text(row, "modified_caption")), Negative(Item.of(text(row, "caption")), MINER)
        return Pair(Item.of(query), (after,), (before,), query_id=identifier(row, "id"))

    return pairs_of(rows, make)


def _answer(row: Record) -> str:
    turns = texts_within(row, "conversations", "value")
    if len(turns) != 2 or TOKEN not in turns[0] or TOKEN in turns[1]:
        expected = f"a request with '{TOKEN}' and its answer"
        raise InputError("conversations", expected=expected, got=f"{turns!r:.80}", remedy="leave the row out")
    return turns[1]


CONVERTERS: dict[str, Converter] = {
    "image_captions": Converter(pairs=image_captions, columns={"rows": ("image",)}),
    "cir_triplets": Converter(
        pairs=cir_triplets, columns={"rows": ("id", "image", "caption", "instruction", "modified_caption")}
    ),
}
"""Every converter by its name, as sources name it."""
