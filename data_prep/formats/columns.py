"""What the columns of a dataset have in common: Arrow has no column of values of several kinds."""

import os
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import datasets

from data_prep.formats.outputs import Writing
from mmembed.data.values import kind_of
from mmembed.errors import InputError
from mmembed.items import Item, Pair

KINDS = ("video", "image", "text")
"""What values are made of, in the order in which it is read."""
_SUFFIXES = {
    "image": (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".tiff", ".webp"),
    "video": (".mp4", ".avi", ".mov", ".wmv", ".flv", ".mkv"),
    "audio": (".mp3", ".wav", ".ogg", ".flac", ".aac"),
}
_LINKS = ("http://", "https://")


@dataclass
class Column:
    """What the values of a column have in common.

    Args:
        kinds: what each is made of.
        several: some have several pictures, so all have lists of them.
        plain: texts alone, none of which would be taken for the name of a medium.
    """

    kinds: tuple[str, ...]
    several: bool = False
    plain: bool = True


@dataclass
class Survey:
    """What the columns of a table have in common.

    Args:
        columns: by name, in order.
        scores: of each row.
    """

    columns: dict[str, Column] = field(default_factory=dict)
    scores: int = 0

    def features(self, *, embed: bool) -> dict[str, Any]:
        """Features of ``datasets``, by column."""
        image = datasets.Image() if embed else datasets.Value("string")
        found: dict[str, Any] = {}
        for name, column in self.columns.items():
            images = datasets.List(image) if column.several else image
            kinds = {kind: images if kind == "image" else datasets.Value("string") for kind in column.kinds}
            found[name] = datasets.Value("string") if column.plain else kinds
        number = datasets.Value("float64")
        return found | ({"label": datasets.List(number) if self.scores > 1 else number} if self.scores else {})


def survey_of(writing: Writing) -> Survey:
    """Look at all pairs once: columns of Arrow are of one kind.

    Raises:
        InputError: a row that differs from the first.
    """
    survey, most = Survey(), writing.options["negatives"]
    for number, (where, pair) in enumerate(writing.pairs()):
        try:
            kept = cut(pair, most)
            placed = placed_items(kept)
            if not number:
                survey.columns = {name: Column(_kinds(item)) for name, _, item in placed}
                survey.scores = len(kept.teacher_scores)
            _compare(survey, kept, len(placed))
            for name, place, item in placed:
                _add(survey.columns[name], place, item)
        except InputError as error:
            raise error.within(where) from None
    return survey


def _compare(survey: Survey, pair: Pair, columns: int) -> None:
    if columns != len(survey.columns):
        expected, got = f"{len(survey.columns) - 2}, as in the first row: each is a column", len(pair.negatives)
        remedy = "say --negatives N to keep the first N of each row, or --drop negatives"
        raise InputError("negatives", expected=expected, got=got, remedy=remedy)
    if len(pair.teacher_scores) != survey.scores:
        expected, got = f"{survey.scores}, as in the first row", len(pair.teacher_scores)
        raise InputError("teacher_scores", expected=expected, got=got, remedy="say --drop teacher_scores")


def _add(column: Column, where: str, item: Item) -> None:
    if _kinds(item) != column.kinds:
        expected = f"{' and '.join(column.kinds)}, as in the first row: a column is of one kind"
        remedy = "write a table for each kind"
        raise InputError(where, expected=expected, got=" and ".join(_kinds(item)), remedy=remedy)
    column.several |= sum(kind_of(part) == "image" for part in item.content) > 1
    # a plain text that reads as the name of a medium would be opened as one
    may_be_named = _kind_by_suffix(item.text) is not None or item.text.startswith(("data:", *_LINKS))
    column.plain &= column.kinds == ("text",) and not may_be_named


def named_medium(text: str, folder: Path) -> str | None:
    """The kind of medium that sentence-transformers takes a text for: the name of a file that is there, or a link."""
    if text.startswith("data:image/"):
        return "image"
    if text.startswith(_LINKS) and " " not in text:
        return _kind_by_suffix(re.split(r"[?#]", text)[0])
    kind = _kind_by_suffix(text)
    return kind if kind and os.path.isfile(folder / text) else None  # noqa: PTH113 - Path raises of a long text


def _kind_by_suffix(name: str) -> str | None:
    return next((kind for kind, suffixes in _SUFFIXES.items() if name.lower().endswith(suffixes)), None)


def _kinds(item: Item) -> tuple[str, ...]:
    there = {kind_of(part) for part in item.content}
    return tuple(kind for kind in KINDS if kind in there)


def cut(pair: Pair, most: int | None) -> Pair:
    """The pair with its first negatives alone, and their scores; None keeps all."""
    if most is None or len(pair.negatives) <= most:
        return pair
    return replace(pair, negatives=pair.negatives[:most], teacher_scores=pair.teacher_scores[: 1 + most])


def placed_items(pair: Pair) -> list[tuple[str, str, Item]]:
    """The items of a pair with their columns and fields."""
    wrong = [(f"negative_{i + 1}", f"negatives[{i}].item", n.item) for i, n in enumerate(pair.negatives)]
    return [("anchor", "query", pair.query), ("positive", "positives[0]", pair.positives[0]), *wrong]
