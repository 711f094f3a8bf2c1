r"""Layouts: how a raw prompt writes an item, where its words are not just joined by separators.

A layout is a string with slots, each at most once: ``{media}`` for the words of all media in order, ``{instruction}``,
``{text}``, and ``{image_token}`` for the word that stands for a picture where the item has none (published text
queries hold such a stray word). The newlines of VLM2Vec's image prompts (arXiv:2410.05160) are layouts:
``"{media}\n{instruction} {text}\n"``.
"""

import re

from mmembed.errors import InputError, nearest

SLOTS = ("media", "instruction", "text", "image_token")


def pieces_of(layout: str) -> list[tuple[str, str]]:
    """A layout as pairs of the words before a slot and the slot's name, in order; the last slot is empty.

    Raises:
        InputError: an unknown slot, or one that stands there twice.
    """
    pieces, end, seen = [], 0, set[str]()
    for found in re.finditer(r"\{([^{}]*)\}", layout):
        name = found[1]
        if name not in SLOTS:
            raise InputError("layout", expected="known slots", got=f"'{{{name}}}'", remedy=nearest(name, SLOTS))
        if name in seen:
            got = f"'{{{name}}}' twice"
            raise InputError("layout", expected="each slot once", got=got, remedy="drop one of the two")
        seen.add(name)
        pieces.append((layout[end : found.start()], name))
        end = found.end()
    return [*pieces, (layout[end:], "")]


def check_layout(layout: str, *, media: bool, instruction: bool, text: bool) -> None:
    """Refuse a layout that would lose something that the item has.

    Raises:
        InputError: the missing slot is named; or the layout cannot be read.
    """
    there = {name for _, name in pieces_of(layout)}
    for name, has in (("media", media), ("instruction", instruction), ("text", text)):
        if has and name not in there:
            raise InputError(
                "layout", expected=f"a place for the item's {name}, '{{{name}}}'", got=f"'{layout}'",
                remedy="add it, or leave it out of the item",
            )  # fmt: skip
