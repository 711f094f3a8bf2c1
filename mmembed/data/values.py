"""An Item as plain values that JSON and Parquet can hold, and back.

An item is written as :meth:`mmembed.items.Item.of` reads it: a string, or an object with ``text``, ``image``,
``video``, ``pdf`` and their options, or with ``content``, a list of such parts in reading order. Three things make it
a file format. A medium is a path below the media root, ``{"path": ...}`` or ``{"bytes": ...}`` (base64 in JSON). A mask
is run-length encoded as COCO does it: ``{"size": [height, width], "counts": [...]}``, down the columns, background
first. And ``"verbatim": false`` beside ``content`` leaves the separators to the prompt style.
"""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from mmembed.data.masks import mask_of_runs, runs_of_mask
from mmembed.data.media_root import MediaRoot
from mmembed.errors import InputError
from mmembed.items import Image, ImageSource, Item, Media, Page, Part, Region, Video, VideoSource

MEDIA_KINDS = ("video", "image", "pdf")
"""Names of the media in a row, in the order in which the short form reads them."""


def item_of(value: Any, root: MediaRoot, field: str) -> Item:
    """The Item of a plain value.

    Args:
        value: a string or a mapping, see the module.
        root: where its media are.
        field: names the value in errors.

    Raises:
        InputError: an unknown key, an unusable value, an empty item or a medium that is not there.
    """
    if not isinstance(value, str | Mapping):
        raise InputError(field, expected="a string or an object", got=repr(value), remedy='write {"text": ...}')
    try:
        if isinstance(value, str):
            return Item.of(value)
        plain = dict(value)
        verbatim = plain.pop("verbatim", None)
        if verbatim is not None and not (isinstance(verbatim, bool) and plain.get("content") is not None):
            raise InputError("item.verbatim", expected="a boolean beside content", got=verbatim, remedy="leave it out")
        item = Item.of(_with_media(plain, root))
        return item if verbatim is None else replace(item, verbatim=verbatim)
    except InputError as error:
        raise error.within(field) from None
    except (TypeError, ValueError) as error:
        # numbers given as words and the like, on which the items themselves stumble
        raise InputError(field, expected="values of the right types", got=str(error), remedy="mend the item") from error


def value_of(item: Item, root: MediaRoot, field: str, *, full: bool = False) -> Any:
    """A plain value that reads back equal to ``item``; bytes stay bytes, paths come back as strings.

    Args:
        item: what to write.
        root: where its media are.
        field: names the value in errors.
        full: always instruction, layout, verbatim and content, not the shortest form.

    Raises:
        InputError: an open picture, or a path outside the root.
    """
    try:
        parts = [part if isinstance(part, str) else _value_of_medium(part, root) for part in item.content]
    except InputError as error:
        raise error.within(field) from None
    if full:
        return {
            "instruction": item.instruction,
            "layout": item.layout,
            "verbatim": item.verbatim,
            "content": parts,
        }
    told = {"instruction": item.instruction, "layout": item.layout}
    instruction = {name: words for name, words in told.items() if words is not None}
    if item.verbatim:
        return instruction | {"content": parts}
    if not _is_short(item):
        return instruction | {"verbatim": False, "content": parts}
    if item.content == (item.text,) and not instruction:
        return item.text
    named = [{"text": part} if isinstance(part, str) else part for part in parts]
    return instruction | {key: value for part in named for key, value in part.items()}


def _is_short(item: Item) -> bool:
    """Whether named fields say it all: each kind at most once, in the order they are read, and no empty text."""
    kinds = [kind_of(part) for part in item.content]
    return kinds == [kind for kind in (*MEDIA_KINDS, "text") if kind in kinds] and "" not in item.content


def kind_of(part: Part) -> str:
    """What a row calls a part: text, image, video or pdf."""
    return {str: "text", Image: "image", Video: "video", Page: "pdf"}[type(part)]


def json_value(value: bytes) -> dict[str, str]:
    """Bytes as JSON writes them (the ``default`` of :func:`json.dumps`)."""
    return {"bytes": base64.b64encode(value).decode("ascii")}


def _with_media(plain: Mapping[str, Any], root: MediaRoot) -> dict[str, Any]:
    """``plain`` with sources and masks in the form that Item.of knows."""
    known: dict[str, Any] = dict(plain)
    for kind in MEDIA_KINDS:
        if plain.get(kind) is not None:
            known[kind] = _source(plain[kind], root, f"item.{kind}")
    if plain.get("regions") is not None:
        known["regions"] = [_region(region) for region in _list(plain["regions"], "item.regions")]
    if plain.get("content") is not None:
        parts = _list(plain["content"], "item.content")
        known["content"] = [part if isinstance(part, str) else _with_media(_mapping(part), root) for part in parts]
    for name in ("instruction", "layout"):
        if plain.get(name) is not None:
            known[name] = _string(plain[name], f"item.{name}")
    return known


def _source(value: Any, root: MediaRoot, where: str) -> Any:
    if isinstance(value, list):
        return [_source(inner, root, where) for inner in value]
    if isinstance(value, str):
        return root.locate(value, where)
    if isinstance(value, bytes):
        return value
    if isinstance(value, Mapping) and len(value) == 1:
        kind, inner = next(iter(value.items()))
        if kind == "path":
            return root.locate(_string(inner, f"{where}.path"), where)
        if kind == "bytes":
            return inner if isinstance(inner, bytes) else _from_base64(inner, where)
    raise InputError(
        where, expected="a path or {bytes: ...}", got=repr(value), remedy="name a file below the media root"
    )


def _from_base64(text: Any, where: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, TypeError, ValueError) as error:
        raise InputError(f"{where}.bytes", expected="base64", got=str(error), remedy="encode the file again") from error


def _value_of_medium(medium: Media, root: MediaRoot) -> dict[str, Any]:
    kind = kind_of(medium)
    value: dict[str, Any] = {kind: _value_of_source(medium.source, root, f"item.{kind}")}
    if isinstance(medium, Image):
        return value | ({"regions": [_value_of_region(r) for r in medium.regions]} if medium.regions else {})
    options = {f.name: getattr(medium, f.name) for f in fields(medium) if getattr(medium, f.name) != f.default}
    return value | {name: option for name, option in options.items() if name != "source"}


def _value_of_source(source: ImageSource | VideoSource, root: MediaRoot, where: str) -> Any:
    if isinstance(source, tuple):
        return [_value_of_source(frame, root, where) for frame in source]
    if isinstance(source, str | Path):
        return root.relative(source, where)
    if isinstance(source, bytes):
        return source
    raise InputError(
        where, expected="a path or bytes", got="an open picture", remedy="save it, or give its encoded bytes"
    )


def _region(value: Any) -> Any:
    region = _mapping(value)
    return region if region.get("mask") is None else {**region, "mask": mask_of_runs(region["mask"])}


def _value_of_region(region: Region) -> dict[str, Any]:
    if region.box is not None:
        return {"box": list(region.box)}
    if region.mask is not None:
        return {"mask": runs_of_mask(region.mask)}
    return {"points": [list(point) for point in region.points]}


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise InputError(where, expected="a list", got=repr(value), remedy="write [...], also around one value")
    return value


def _mapping(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InputError("item", expected="an object", got=repr(value), remedy="write {...}")
    return value


def _string(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise InputError(where, expected="a string", got=repr(value), remedy="quote it")
    return value
