"""CIRR (arXiv:2108.04024): a picture of everyday life and a change find the picture that shows it.

The gallery is the split's list of pictures, references among them, which the protocol removes. Each query has a group
of six pictures alike, reference and target among them: the five others are its candidates, for the recall of subsets.
A query is named by its ``pairid`` and a target by its picture's name, as submissions write them.
"""

from collections.abc import Iterator, Mapping
from functools import partial

from data_prep.converters import Converter, Media, Ranked, Record
from data_prep.converters.composed_ranked.making import Making, Query
from data_prep.converters.fields import REMEDY, identifier, in_row, text, texts
from data_prep.source import SourceSet
from mmembed.errors import InputError

GROUP = 6


def cirr(judged: bool, parts: Mapping[str, Iterator[Record]], row_set: SourceSet, media: Media) -> Ranked:
    """The retrieval set of a split.

    Args:
        judged: whether rows bring their target, which test1 keeps from the public.
        parts: ``rows`` and ``gallery``, which is a path for each name.
        row_set: the set.
        media: pictures.

    Raises:
        InputError: a row that lacks a field, or names a picture that is not in the gallery: its number and the field.
    """
    making = Making(media, Ranked(whole=True, judged=judged))
    for number, record in enumerate(parts["gallery"]):
        with in_row(number, "gallery"):
            making.target(text(record, "key"), [text(record, "value")], "value")
    for number, record in enumerate(parts["rows"]):
        with in_row(number):
            making.query(_query(record, making, judged))
    return making.made


def _query(record: Record, making: Making, judged: bool) -> Query:
    reference = making.known(text(record, "reference"), "reference")
    right = {making.known(text(record, "target_hard"), "target_hard"): 1.0} if judged else {}
    members = _members(record)
    for name in members:
        making.known(name, "img_set.members")
    if absent := [name for name in (reference, *right) if name not in members]:
        raise InputError(
            "img_set.members", expected="reference and target among them", got=f"no '{absent[0]}'", remedy=REMEDY
        )
    others = [name for name in members if name != reference]
    return Query(identifier(record, "pairid"), reference, [text(record, "caption")], right, others)


def _members(record: Record) -> list[str]:
    group = record.get("img_set")
    if not isinstance(group, Mapping):
        raise InputError("img_set", expected="a JSON object", got=f"{group!r:.80}", remedy=REMEDY)
    try:
        members = texts(group, "members")
    except InputError as error:
        raise error.within("img_set") from None
    if len(set(members)) != GROUP:
        got = f"{len(set(members))} of {len(members)} names"
        raise InputError("img_set.members", expected=f"{GROUP} different names", got=got, remedy=REMEDY)
    return members


COLUMNS = ("pairid", "reference", "caption", "img_set")
CONVERTERS = {
    name: Converter(
        ranked=partial(cirr, judged),
        parts=("rows", "gallery"),
        columns={"rows": (*COLUMNS, *(("target_hard",) if judged else ())), "gallery": ("key", "value")},
        forms={"gallery": "mapping"},
    )
    for name, judged in (("cirr", True), ("cirr_unjudged", False))
}
"""Every converter by its name, as sources name it."""
