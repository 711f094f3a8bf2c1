"""Training rows of composed retrieval: a picture or a clip and a change find what they become.

The query is the two as they are; how a model is told of them is its prompt's business. What the query shows is a hard
negative where the rows say so themselves (MegaPairs), and else where a recipe does (``query_image_negative``).
"""

from collections.abc import Callable, Iterator
from itertools import count

from data_prep.converters import Converter, Media, Record
from data_prep.converters.composed_pairs_kit import (
    Named,
    chosen,
    composed,
    listed,
    named,
    numbered,
    several_of,
)
from data_prep.converters.fields import PICTURES, text, texts, two_texts
from data_prep.source import SourceSet
from mmembed.errors import InputError, nearest
from mmembed.items import Image, Item, Negative, Pair, Video, joined

ORDERS: dict[str, Callable[[str, str], tuple[str, ...]]] = {
    "both": lambda first, second: (first, second),
    "reversed": lambda first, second: (second, first),
    "first": lambda first, second: (first,),
    "second": lambda first, second: (second,),
}
"""Which of FashionIQ's two captions, and in which order."""


def cirr_pairs(rows: Iterator[Record], row_set: SourceSet, media: Media) -> Iterator[Pair | InputError]:
    """CIRR (arXiv:2108.04024): pictures are named by their files' names, which lie somewhere below the media."""
    pictures = Named(media.folder)

    def make(row: Record) -> list[Pair]:
        shown, wanted = (pictures.find(text(row, column), column) for column in ("reference", "target_hard"))
        return [composed(row, "pairid", shown, text(row, "caption"), wanted, text(row, "target_hard"))]

    return several_of(rows, make)


def fashioniq_pairs(rows: Iterator[Record], row_set: SourceSet, media: Media) -> Iterator[Pair | InputError]:
    """FashionIQ (arXiv:1905.12794): two captions of one change.

    Option ``join`` writes them as one text (:data:`mmembed.items.JOINS`); where it writes several ways, each is a pair.
    Option ``orders`` says of what: a pair for each of :data:`ORDERS`, less those that an empty caption leaves without
    words or equal to another. CLIP4Cir (arXiv:2308.11485) draws one of the four at each step: all four in one table are
    drawn as often.
    """
    join, orders = row_set.options["join"], row_set.options["orders"]
    for order in orders:
        if order not in ORDERS:
            raise InputError("options.orders", expected="known orders", got=order, remedy=nearest(order, ORDERS))

    def make(row: Record) -> list[Pair]:
        captions = two_texts(row, "captions")
        shown, wanted = (named(media, text(row, column), column) for column in ("candidate", "target"))
        told = (ORDERS[order](*captions) for order in orders)
        written = (way for kept in told if any(one.strip() for one in kept) for way in joined(join, kept))
        return [composed(row, None, shown, way, wanted, text(row, "target")) for way in dict.fromkeys(written)]

    return several_of(rows, make)


def lasco_pairs(rows: Iterator[Record], row_set: SourceSet, media: Media) -> Iterator[Pair | InputError]:
    """LaSCo (arXiv:2303.09429): pictures are pairs of a number and a path."""

    def make(row: Record) -> list[Pair]:
        (_, query), (name, target) = (numbered(row, column) for column in ("query-image", "target-image"))
        shown, wanted = media.find(query, "query-image"), media.find(target, "target-image")
        return [composed(row, "qid", shown, text(row, "query-text"), wanted, name)]

    return several_of(rows, make)


def covr_pairs(rows: Iterator[Record], row_set: SourceSet, media: Media) -> Iterator[Pair | InputError]:
    """WebVid-CoVR (arXiv:2308.14746) and CC-CoIR: clips or pictures of CSV rows, named without their suffix.

    Option ``num_frames`` says that they are clips, and how many frames are taken of each; option ``texts`` what becomes
    of a list of changes, see :func:`chosen`.
    """
    frames, numbers = row_set.options.get("num_frames"), count()

    def item(name: str, where: str) -> Item:
        path = named(media, name, where, PICTURES if frames is None else (".mp4",))
        return Item.of(Image(str(path)) if frames is None else Video(str(path), num_frames=frames))

    def make(row: Record) -> list[Pair]:
        number, (first, second) = next(numbers), (text(row, column) for column in ("pth1", "pth2"))
        shown, wanted, changes = item(first, "pth1"), item(second, "pth2"), listed(text(row, "edit"), "edit")
        return [
            Pair(Item((*shown.media, change), verbatim=False), (wanted,), query_id=str(number), target_ids=(second,))
            for change in chosen(changes, number, row_set)
        ]

    return several_of(rows, make)


def megapairs_pairs(rows: Iterator[Record], row_set: SourceSet, media: Media) -> Iterator[Pair | InputError]:
    """MegaPairs (arXiv:2412.14475): several changes of a picture and several hard negatives, the picture itself first.

    Option ``texts``: see :func:`chosen`.
    """
    numbers = count()

    def make(row: Record) -> list[Pair]:
        number, wrong = next(numbers), texts(row, "hns")
        shown, wanted = (media.find(text(row, column), column) for column in ("q_img", "t_img"))
        negatives = tuple(
            Negative(Item.of({"image": str(media.find(path, "hns"))}), "query" if path == row["q_img"] else "published")
            for path in wrong
        )
        return [
            composed(row, None, shown, change, wanted, text(row, "t_img"), negatives)
            for change in chosen(texts(row, "q_text"), number, row_set)
        ]

    return several_of(rows, make)


def mtcir_pairs(rows: Iterator[Record], row_set: SourceSet, media: Media) -> Iterator[Pair | InputError]:
    """MTCIR of CoLLM (arXiv:2503.19910): several changes of a picture. Option ``texts``: see :func:`chosen`."""
    numbers = count()

    def make(row: Record) -> list[Pair]:
        number = next(numbers)
        shown, wanted = (media.find(text(row, column), column) for column in ("image", "target_image"))
        changes = chosen(texts(row, "modifications"), number, row_set)
        return [composed(row, "id", shown, change, wanted, text(row, "target_image")) for change in changes]

    return several_of(rows, make)


CONVERTERS: dict[str, Converter] = {
    "cirr_pairs": Converter(pairs=cirr_pairs, columns={"rows": ("pairid", "reference", "target_hard", "caption")}),
    "fashioniq_pairs": Converter(pairs=fashioniq_pairs, columns={"rows": ("candidate", "target", "captions")}),
    "lasco_pairs": Converter(pairs=lasco_pairs, columns={"rows": ("qid", "query-image", "query-text", "target-image")}),
    "covr_pairs": Converter(pairs=covr_pairs, columns={"rows": ("pth1", "pth2", "edit")}),
    "megapairs_pairs": Converter(pairs=megapairs_pairs, columns={"rows": ("q_img", "q_text", "t_img", "hns")}),
    "mtcir_pairs": Converter(pairs=mtcir_pairs, columns={"rows": ("id", "image", "target_image", "modifications")}),
}
"""Every converter by its name, as sources name it."""
