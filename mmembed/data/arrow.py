"""The rows of pair and item tables as Arrow columns: the schema of their Parquet files.

An item is always written in full here: its parts in reading order, each a struct whose ``type`` says which of the other
fields count. In memory the fields are those of :mod:`mmembed.data.values`, to which rows are turned back on reading.
"""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from mmembed.data.values import MEDIA_KINDS
from mmembed.errors import InputError, nearest

_SOURCE = [("path", pa.string()), ("bytes", pa.large_binary())]
_MASK = pa.struct([("size", pa.list_(pa.int64())), ("counts", pa.list_(pa.int64()))])
_POINT = pa.struct([("x", pa.float64()), ("y", pa.float64()), ("label", pa.int8())])
_REGION = pa.struct([("box", pa.list_(pa.float64())), ("points", pa.list_(_POINT)), ("mask", _MASK)])
_PART = pa.struct(
    [
        ("type", pa.string()),  # text, image, video or pdf
        ("text", pa.string()),
        *_SOURCE,
        ("page", pa.int32()),
        ("dpi", pa.int32()),
        ("num_frames", pa.int32()),
        ("fps", pa.float64()),
        ("start_s", pa.float64()),
        ("end_s", pa.float64()),
        ("frames", pa.list_(pa.struct(_SOURCE))),  # of a video given as pictures
        ("regions", pa.list_(_REGION)),
    ]
)
_ITEM_FIELDS = [
    ("instruction", pa.string()),
    ("layout", pa.string()),
    ("verbatim", pa.bool_()),
    ("content", pa.list_(_PART)),
]
_ITEM = pa.struct(_ITEM_FIELDS)
_NEGATIVE = pa.struct(
    [
        ("item", _ITEM),
        ("miner", pa.string()),
        ("rank", pa.int64()),
        ("score", pa.float64()),
        ("target_id", pa.string()),
    ]
)

PAIR_SCHEMA = pa.schema(
    [
        ("query", _ITEM),
        ("positives", pa.list_(_ITEM)),
        ("negatives", pa.list_(_NEGATIVE)),
        ("teacher_scores", pa.list_(pa.float64())),
        ("query_id", pa.string()),
        ("target_ids", pa.list_(pa.string())),
        ("class_id", pa.string()),
    ]
)
"""Columns of a pair table; see :mod:`mmembed.data.rows` for what they mean."""

ITEM_SCHEMA = pa.schema([("id", pa.string()), *_ITEM_FIELDS])
"""Columns of an item table: a name beside the fields of the item."""


def columns_of_pair(record: Mapping[str, Any]) -> dict[str, Any]:
    """A row of :func:`mmembed.data.rows.record_of_pair`, its items in full, as values of PAIR_SCHEMA."""
    negatives = [{**negative, "item": columns_of_item(negative["item"])} for negative in record.get("negatives", [])]
    return {
        **record,
        "query": columns_of_item(record["query"]),
        "positives": [columns_of_item(item) for item in record["positives"]],
        "negatives": negatives,
    }


def columns_of_item(value: Mapping[str, Any]) -> dict[str, Any]:
    """An item in full, as values of the schema."""
    return {**value, "content": [_columns_of_part(part) for part in value["content"]]}


def pair_of_columns(columns: Mapping[str, Any]) -> dict[str, Any]:
    """A row of a pair table as :func:`mmembed.data.rows.pair_of` reads it."""
    record = _without_nulls(columns)
    if "query" in record:
        record["query"] = item_of_columns(record["query"])
    for name in ("positives", "negatives"):
        if isinstance(record.get(name), list):
            record[name] = [item_of_columns(value) for value in record[name]]
    return record


def item_of_columns(value: Any) -> Any:
    """An item, or a negative around an item, without the nulls of absent fields and with parts as rows write them."""
    if not isinstance(value, Mapping):
        return value
    plain = _without_nulls(value)
    if "item" in plain:
        plain["item"] = item_of_columns(plain["item"])
    if isinstance(plain.get("content"), list):
        plain["content"] = [_part_of_columns(part) for part in plain["content"]]
    return plain


def _columns_of_part(part: Any) -> dict[str, Any]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    kind = next(kind for kind in MEDIA_KINDS if kind in part)
    options = {name: value for name, value in part.items() if name != kind}
    if "regions" in options:
        options["regions"] = [_columns_of_region(region) for region in options["regions"]]
    source = part[kind]
    where = (
        {"frames": [_columns_of_source(frame) for frame in source]}
        if isinstance(source, list)
        else _columns_of_source(source)
    )
    return {"type": kind, **where, **options}


def _columns_of_source(source: str | bytes) -> dict[str, str | bytes]:
    return {"path": source} if isinstance(source, str) else {"bytes": source}


def _columns_of_region(region: Mapping[str, Any]) -> dict[str, Any]:
    if "points" not in region:
        return dict(region)
    return {"points": [dict(zip(("x", "y", "label"), point, strict=True)) for point in region["points"]]}


def _part_of_columns(part: Any) -> Any:
    if not isinstance(part, Mapping) or "type" not in part:
        return part
    plain = _without_nulls(part)
    kind = plain.pop("type")
    if kind == "text":
        return plain.get("text", "")
    if kind not in MEDIA_KINDS:
        known = ("text", *MEDIA_KINDS)
        raise InputError("content.type", expected="a kind of part", got=f"'{kind}'", remedy=nearest(str(kind), known))
    source = {name: plain.pop(name) for name in ("path", "bytes") if name in plain}
    frames = [_without_nulls(frame) for frame in plain.pop("frames", [])]
    if "regions" in plain:
        plain["regions"] = [_region_of_columns(region) for region in plain["regions"]]
    return {kind: frames or source, **plain}


def _region_of_columns(columns: Mapping[str, Any]) -> dict[str, Any]:
    region = _without_nulls(columns)
    if "points" in region:
        region["points"] = [[point["x"], point["y"], point["label"]] for point in region["points"]]
    return region


def _without_nulls(values: Mapping[str, Any] | None) -> dict[str, Any]:
    return {name: value for name, value in (values or {}).items() if value is not None}
