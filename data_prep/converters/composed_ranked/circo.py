"""CIRCO (arXiv:2303.15247): a picture of COCO and a change find all pictures that show it, among 123,403.

A query says the change, and what reference and target share. Of its right targets one is the picture that the change
was written for, which has grade 2 and alone counts for the recall; the others have grade 1. The reference is in the
gallery, and stays there. A query is named by its ``id`` and a target by its number in COCO, as submissions write them.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from data_prep.converters import Converter, Media, Ranked, Record
from data_prep.converters.composed_ranked.making import Making, Query
from data_prep.converters.fields import REMEDY, identifier, in_row, text, texts
from data_prep.source import SourceSet
from mmembed.errors import InputError

ASPECT = "aspect"
"""Kind of the groups of queries: the semantic aspects that a change has, several at once."""
WRITTEN_FOR, ALSO_RIGHT = 2.0, 1.0
REPEATED = "aspects that their query names twice, which the official evaluation counts twice"


def circo(judged: bool, parts: Mapping[str, Iterator[Record]], row_set: SourceSet, media: Media) -> Ranked:
    """The retrieval set of a split.

    Args:
        judged: whether rows bring their targets and aspects, which those of test keep from the public.
        parts: ``rows``, and ``gallery``, the object of COCO with its list ``images``.
        row_set: the set.
        media: pictures.

    Raises:
        InputError: a row that lacks a field, or names a picture that is not in the gallery: its number and the field.
    """
    making = Making(media, Ranked(whole=True, judged=judged))
    for number, record in enumerate(parts["gallery"]):
        with in_row(number, "gallery"):
            if text(record, "key") == "images":
                _add_targets(record["value"], making)
    for number, record in enumerate(parts["rows"]):
        with in_row(number):
            making.query(_query(record, making, judged))
    return making.made


def _add_targets(images: Any, making: Making) -> None:
    if not isinstance(images, list) or not images:
        raise InputError("value", expected="a list of pictures", got=f"{images!r:.80}", remedy=REMEDY)
    for place, image in enumerate(images):
        if not isinstance(image, Mapping):
            raise InputError(f"value[{place}]", expected="a JSON object", got=f"{image!r:.80}", remedy=REMEDY)
        try:
            making.target(identifier(image, "id"), [text(image, "file_name")], "file_name")
        except InputError as error:
            raise error.within(f"value[{place}]") from None


def _query(record: Record, making: Making, judged: bool) -> Query:
    reference = making.known(identifier(record, "reference_img_id"), "reference_img_id")
    said = [text(record, "relative_caption"), text(record, "shared_concept")]
    name = identifier(record, "id")
    if not judged:
        return Query(name, reference, said)
    aspects = texts(record, "semantic_aspects")
    making.made.note(REPEATED, len(aspects) - len(set(aspects)))
    return Query(name, reference, said, _right(record, making), groups={ASPECT: tuple(dict.fromkeys(aspects))})


def _right(record: Record, making: Making) -> dict[str, float]:
    """The grades of the right targets, of which the one that the change was written for is one."""
    given = record.get("gt_img_ids")
    if not isinstance(given, list) or not given:
        raise InputError("gt_img_ids", expected="a list of numbers", got=f"{given!r:.80}", remedy=REMEDY)
    names = [making.known(identifier({"id": value}, "id"), f"gt_img_ids[{place}]") for place, value in enumerate(given)]
    best = identifier(record, "target_img_id")
    if best not in names:
        raise InputError("target_img_id", expected="one of gt_img_ids", got=f"'{best}'", remedy=REMEDY)
    return {name: WRITTEN_FOR if name == best else ALSO_RIGHT for name in names}


COLUMNS = ("id", "reference_img_id", "relative_caption", "shared_concept")
JUDGED = ("target_img_id", "gt_img_ids", "semantic_aspects")
CONVERTERS = {
    name: Converter(
        ranked=partial(circo, judged),
        parts=("rows", "gallery"),
        columns={"rows": (*COLUMNS, *(JUDGED if judged else ())), "gallery": ("key", "value")},
        forms={"gallery": "mapping"},
    )
    for name, judged in (("circo", True), ("circo_unjudged", False))
}
"""Every converter by its name, as sources name it."""
