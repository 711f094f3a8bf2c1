"""FashionIQ (arXiv:1905.12794): a garment and two captions of what is different find the garment they describe.

The reference is in the gallery. Option ``gallery`` says which that is: ``original`` is the list of the split;
``val-union`` only what the queries name (the "VAL split" of VAL, CosMo and FAME-ViL), whose scores are several points
higher. Pictures are ``ASIN.jpg`` or ``ASIN.png``.
"""

from collections.abc import Iterator, Mapping

from data_prep.converters import Converter, Media, Ranked, Record
from data_prep.converters.composed_ranked.making import Making, Query
from data_prep.converters.fields import PICTURES, in_row, text, two_texts
from data_prep.source import SourceSet
from mmembed.errors import InputError, nearest

GALLERIES = ("original", "val-union")
EMPTY = "queries of which one caption is empty"


def fashioniq(parts: Mapping[str, Iterator[Record]], row_set: SourceSet, media: Media) -> Ranked:
    """The retrieval set of a category; a query is named by the number of its row, a target by its ASIN.

    Raises:
        InputError: a row that lacks a name or has other than two captions: its number and the field.
    """
    making = Making(media, Ranked(whole=True))
    queries = []
    for number, record in enumerate(parts["rows"]):
        with in_row(number):
            queries.append(_query(str(number), record))
    only = _named(queries) if _gallery(row_set) == "val-union" else None
    for number, record in enumerate(parts["gallery"]):
        with in_row(number, "gallery"):
            name = text(record, "value")
            if only is None or name in only:
                making.target(name, [name + suffix for suffix in PICTURES], "value")
    for number, query in enumerate(queries):
        with in_row(number):
            making.known(query.reference, "candidate")
            making.known(next(iter(query.right)), "target")
            making.made.note(EMPTY, not all(caption.strip() for caption in query.texts))
            making.query(query)
    return making.made


def _query(name: str, record: Record) -> Query:
    captions = two_texts(record, "captions")
    return Query(name, text(record, "candidate"), captions, {text(record, "target"): 1.0})


def _named(queries: list[Query]) -> set[str]:
    return {name for query in queries for name in (query.reference, *query.right)}


def _gallery(row_set: SourceSet) -> str:
    kind = str(row_set.options.get("gallery", GALLERIES[0]))
    if kind not in GALLERIES:
        raise InputError(
            "options.gallery", expected=" or ".join(GALLERIES), got=f"'{kind}'", remedy=nearest(kind, GALLERIES)
        )
    return kind


CONVERTERS = {
    "fashioniq": Converter(
        ranked=fashioniq,
        parts=("rows", "gallery"),
        columns={"rows": ("candidate", "target", "captions"), "gallery": ("value",)},
        forms={"gallery": "values"},
    )
}
"""Every converter by its name, as sources name it."""
