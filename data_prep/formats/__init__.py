"""Formats: training rows of other projects, read as pairs and written from them; one module a format.

A format says what it can hold. What it cannot is refused by row and field, on the way in and on the way out, unless it
is asked to be left out, which is counted. ``data_prep/convert.py`` is the command.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from mmembed.items import Pair

if TYPE_CHECKING:
    from data_prep.formats.inputs import Reading
    from data_prep.formats.outputs import Writing

Record: TypeAlias = Mapping[str, Any]

PAIR_FIELDS = ("query_id", "target_ids", "negative_ids", "class_id", "teacher_scores", "provenance")
"""What a pair has besides its items: names of query, positives and negatives, and how negatives were found."""


@dataclass(frozen=True)
class Shape:
    """Items that a format can hold.

    Args:
        kinds: parts that an item may have: text, image, video.
        images: most pictures of an item; None is any number.
        tagged: parts stand in reading order, media as tags in the text; else they are named fields, of which the
            order is video, image, text.
        verbatim: how items are read, see :class:`mmembed.items.Item`.
        instruction: the words that say the task have a place of their own.
        layouts: layouts that an item of one text may have.
    """

    kinds: tuple[str, ...] = ("text", "image")
    images: int | None = 1
    tagged: bool = False
    verbatim: bool = False
    instruction: bool = False
    layouts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Holds:
    """Pairs that a format can hold.

    Args:
        query: its queries.
        target: its positives and negatives.
        positives: most of a row; None is any number.
        negatives: most of a row; None is any number.
        fields: which of :data:`PAIR_FIELDS`.
    """

    query: Shape
    target: Shape
    positives: int | None = 1
    negatives: int | None = None
    fields: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Format:
    """A format of training rows.

    Args:
        about: a line for the help: fields, and who reads it.
        holds: what it can hold.
        read: its rows as pairs, in order.
        write: pairs as its rows, in order.
        reading: options of the command that ``read`` knows besides those of every format.
        writing: options that ``write`` knows.
        suffixes: of the files that hold the rows; an empty one is a folder.
    """

    about: str
    holds: Holds
    read: Callable[["Reading"], Iterator[Pair]]
    write: Callable[["Writing"], None]
    reading: tuple[str, ...] = ()
    writing: tuple[str, ...] = ()
    suffixes: tuple[str, ...] = (".jsonl",)
