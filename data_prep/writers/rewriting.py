"""CIReVL's two ends: what of a query is described and changed, and what of an answer is the description."""

import re

from data_prep.writers.prompts import CHANGE, CONTENT, EDITED
from mmembed.errors import InputError
from mmembed.items import Image, Item, joined

_ENDS = re.compile(rf"\n\s*\n|\n\s*(?={re.escape(CONTENT)}|{re.escape(CHANGE)})", re.IGNORECASE)


def reference_and_change(item: Item, join: str | None) -> tuple[Image, str]:
    """The picture of a composed query, and its texts as one change.

    Args:
        item: the query.
        join: how several texts become one; None is for queries of one text.

    Raises:
        InputError: not one whole picture, or not one text.
    """
    if len(item.media) != 1 or not isinstance(item.media[0], Image) or item.media[0].regions:
        got = ", ".join(type(medium).__name__ for medium in item.media) or "no media"
        raise InputError(
            "item", expected="one picture without regions", got=got, remedy="CIReVL describes whole pictures"
        )
    texts = [part for part in item.content if isinstance(part, str)]
    written = tuple(texts) if join is None else joined(join, texts)
    if len(written) != 1:
        remedy = "name a --join that makes one of them, e.g. cirevl, or change"
        raise InputError("item", expected="one change", got=f"{len(written)} texts", remedy=remedy)
    return item.media[0], written[0]


def description(answer: str) -> str | None:
    """What stands behind the first ``Edited Description:``, to the end of its paragraph; None where there is nothing.

    The published code splits at every colon and keeps the second piece, which cuts a description that has a colon.
    """
    found = re.search(re.escape(EDITED), answer, re.IGNORECASE)
    if found is None:
        return None
    behind = answer[found.end() :].lstrip()
    if end := _ENDS.search(f"\n{behind}"):
        behind = f"\n{behind}"[: end.start()]
    return " ".join(behind.split()).strip("\"'“”* ") or None
