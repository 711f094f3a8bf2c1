"""A Pair as the plain values of a table row, and back.

Fields: ``query`` (an item), ``positives`` (items), ``negatives`` (each ``{"item", "miner", "rank", "score",
"target_id"}``, or just an item), ``teacher_scores`` (of the positives, then the negatives), ``query_id``,
``target_ids``, ``class_id``.
All but the first two may be left out; items are written as :mod:`mmembed.data.values` says.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from mmembed.data.media_root import MediaRoot
from mmembed.data.values import item_of, value_of
from mmembed.errors import InputError, nearest
from mmembed.items import Item, Negative, Pair

PAIR_FIELDS = ("query", "positives", "negatives", "teacher_scores", "query_id", "target_ids", "class_id")
_NEGATIVE_FIELDS = ("item", "miner", "rank", "score", "target_id")


def pair_of(record: Mapping[str, Any], root: MediaRoot) -> Pair:
    """The Pair of a row.

    Raises:
        InputError: a missing, unknown or unusable field, or a medium that is not there; the field is named.
    """
    refuse_unknown(record, PAIR_FIELDS)
    for name in ("query", "positives"):
        if record.get(name) is None:
            raise InputError(name, expected="a value", got="nothing", remedy="every pair has a query and positives")
    pair = Pair(
        query=item_of(record["query"], root, "query"),
        positives=tuple(item_of(value, root, where) for where, value in _entries(record, "positives")),
        negatives=tuple(_negative_of(value, root, where) for where, value in _entries(record, "negatives")),
        teacher_scores=tuple(_finite(value, where) for where, value in _entries(record, "teacher_scores")),
        query_id=string_of(record.get("query_id", ""), "query_id"),
        target_ids=tuple(string_of(value, where) for where, value in _entries(record, "target_ids")),
        class_id=string_of(record.get("class_id", ""), "class_id"),
    )
    if pair.target_ids and len(pair.target_ids) != len(pair.positives):
        expected, got = f"{len(pair.positives)} names, one for each positive", len(pair.target_ids)
        raise InputError("target_ids", expected=expected, got=got, remedy="name every positive or none")
    return pair


def record_of_pair(pair: Pair, root: MediaRoot, *, full: bool = False) -> dict[str, Any]:
    """The row of a Pair, empty fields left out; ``full`` spells its items out.

    Its ``source`` is not written: the mixture that reads the row names it.
    """
    record = {
        "query": value_of(pair.query, root, "query", full=full),
        "positives": [value_of(item, root, f"positives[{i}]", full=full) for i, item in enumerate(pair.positives)],
        "negatives": [_value_of_negative(n, root, f"negatives[{i}]", full) for i, n in enumerate(pair.negatives)],
        "teacher_scores": [_finite(score, f"teacher_scores[{i}]") for i, score in enumerate(pair.teacher_scores)],
        "query_id": pair.query_id,
        "target_ids": list(pair.target_ids),
        "class_id": pair.class_id,
    }
    return {name: value for name, value in record.items() if value not in ("", [])}


def id_and_item_of(record: Mapping[str, Any], root: MediaRoot) -> tuple[str, Item]:
    """Name and Item of a row ``{"id": ..., **item}``.

    Raises:
        InputError: no id, or an unusable item.
    """
    name = string_of(record.get("id"), "id")
    item = item_of({key: value for key, value in record.items() if key != "id"}, root, "item")
    return name, item


def record_of_item(name: str, item: Item, root: MediaRoot, *, full: bool = False) -> dict[str, Any]:
    """The row of a named Item; ``full`` spells it out."""
    value = value_of(item, root, "item", full=full)
    return {"id": name} | ({"text": value} if isinstance(value, str) else value)


def refuse_unknown(record: Mapping[str, Any], known: Iterable[str], where: str = "") -> None:
    """Complain of the first field that is not known, with the nearest one that is."""
    for name in record:
        if name not in known:
            raise InputError(f"{where}{name}", expected="a known field", got=f"'{name}'", remedy=nearest(name, known))


def string_of(value: Any, where: str) -> str:
    """``value`` if it is a string."""
    if not isinstance(value, str):
        raise InputError(where, expected="a string", got=repr(value), remedy="quote it")
    return value


def _negative_of(value: Any, root: MediaRoot, where: str) -> Negative:
    if not (isinstance(value, Mapping) and "item" in value):
        return Negative(item_of(value, root, where))
    refuse_unknown(value, _NEGATIVE_FIELDS, f"{where}.")
    rank, score = value.get("rank"), value.get("score")
    if rank is not None and not (isinstance(rank, int) and rank >= 1):
        raise InputError(
            f"{where}.rank", expected="a whole number from 1", got=repr(rank), remedy="the first rank is 1"
        )
    return Negative(
        item=item_of(value["item"], root, f"{where}.item"),
        miner=string_of(value.get("miner", ""), f"{where}.miner"),
        rank=rank,
        score=None if score is None else _finite(score, f"{where}.score"),
        target_id=string_of(value.get("target_id", ""), f"{where}.target_id"),
    )


def _value_of_negative(negative: Negative, root: MediaRoot, where: str, full: bool) -> dict[str, Any]:
    score = None if negative.score is None else _finite(negative.score, f"{where}.score")
    item = value_of(negative.item, root, f"{where}.item", full=full)
    told = {"miner": negative.miner, "rank": negative.rank, "score": score, "target_id": negative.target_id}
    value = {"item": item, **told}
    return {name: inner for name, inner in value.items() if inner not in ("", None)}


def _entries(record: Mapping[str, Any], name: str) -> list[tuple[str, Any]]:
    """The values of a list field, each with its name for errors."""
    values = record.get(name, [])
    if not isinstance(values, list):
        raise InputError(name, expected="a list", got=repr(values), remedy="write [...], also around one value")
    return [(f"{name}[{i}]", value) for i, value in enumerate(values)]


def _finite(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InputError(where, expected="a finite number", got=repr(value), remedy="score the pair again")
    return float(value)
