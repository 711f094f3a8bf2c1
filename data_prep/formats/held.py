"""What a format cannot hold of a pair, refused by field."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from data_prep.formats import PAIR_FIELDS, Holds, Shape
from mmembed.data.values import MEDIA_KINDS, kind_of
from mmembed.errors import InputError
from mmembed.items import Image, Item, Media, Pair, Video

NAMED_ORDER = (*MEDIA_KINDS, "text")
"""The order in which named fields are read."""
Loss = tuple[str, str, str]
"""What cannot be held: the field that ``--drop`` knows (empty where nothing helps), what is expected, what is there."""


def refuse_unheld(pair: Pair, holds: Holds, name: str) -> None:
    """Refuse a pair that a format cannot hold.

    Args:
        pair: what is to be written.
        holds: what the format can hold.
        name: of the format, for the error.

    Raises:
        InputError: the first field that would be lost, with what leaves it out.
    """
    if losses := list(_losses(pair, holds)):
        raise _unheld(losses, name)


def refuse_item(item: Item, shape: Shape, name: str) -> None:
    """Refuse an item that a format cannot hold; see :func:`refuse_unheld`."""
    if losses := [("item", loss) for loss in _item_losses(item, shape)]:
        raise _unheld(losses, name)


def _unheld(losses: list[tuple[str, Loss]], name: str) -> InputError:
    """The first of several losses that nothing helps with, else the first; its remedy leaves out all."""
    where, (helped, expected, got) = next((one for one in losses if not one[1][0]), losses[0])
    fields = list(dict.fromkeys(loss[0] for _, loss in losses))
    remedy = f"say --drop {','.join(fields)} to leave out what it cannot"
    if "instruction" in fields:
        remedy += ", or --fold-instruction to write instructions into texts"
    if not helped:
        remedy = "leave the row out, or choose another format"
    return InputError(where, expected=f"{expected}, all that {name} can hold", got=got, remedy=remedy)


def _losses(pair: Pair, holds: Holds) -> Iterator[tuple[str, Loss]]:
    for field, most, values in (
        ("positives", holds.positives, pair.positives),
        ("negatives", holds.negatives, pair.negatives),
    ):
        if most is not None and len(values) > most:
            yield field, (field, f"at most {most}" if most else "none", f"{len(values)}")
    for field in PAIR_FIELDS:
        if field not in holds.fields and (got := _told(pair, field)):
            yield field, (field, "none", got)
    for where, item, shape in _placed_items(pair, holds):
        for loss in _item_losses(item, shape):
            yield f"{where}.{loss[0]}" if loss[0] else where, loss


def _told(pair: Pair, field: str) -> str:
    """What a pair says in a field, in words; empty where it says nothing."""
    if field == "negative_ids":
        return ", ".join(negative.target_id for negative in pair.negatives if negative.target_id)
    if field == "provenance":
        mined = (n for n in pair.negatives if n.miner or n.rank is not None or n.score is not None)
        return ", ".join(f"{n.miner or 'a miner'} rank {n.rank} score {n.score}" for n in mined)
    value = getattr(pair, field)
    return str(value) if value else ""


def _placed_items(pair: Pair, holds: Holds) -> Iterator[tuple[str, Item, Shape]]:
    yield "query", pair.query, holds.query
    for i, item in enumerate(pair.positives):
        yield f"positives[{i}]", item, holds.target
    for i, negative in enumerate(pair.negatives):
        yield f"negatives[{i}].item", negative.item, holds.target


def _item_losses(item: Item, shape: Shape) -> Iterator[Loss]:
    kinds = [kind_of(part) for part in item.content]
    for kind in kinds:
        if kind not in shape.kinds:
            yield "", ", ".join(shape.kinds), kind
    for medium in item.media:
        yield from _medium_losses(medium)
    if shape.images is not None and kinds.count("image") > shape.images:
        yield "", f"at most {shape.images} picture an item", str(kinds.count("image"))
    laid_out = item.layout in shape.layouts
    if item.layout is not None and not laid_out:
        yield "layout", "no layout", repr(item.layout)
    if item.instruction is not None and not shape.instruction and not laid_out:
        yield "instruction", "no instruction of its own", repr(item.instruction)
    if not in_order(item, shape):
        yield "order", _order_in_words(shape), f"{' then '.join(kinds)}"
    if item.verbatim != shape.verbatim:
        words = {False: "named fields (verbatim: false)", True: "content with separators of its own (verbatim)"}
        yield "verbatim", words[shape.verbatim], words[item.verbatim]


def _medium_losses(medium: Media) -> Iterator[Loss]:
    if isinstance(medium, Image) and medium.regions:
        yield "regions", "a picture without regions", f"{len(medium.regions)} of them"
    if isinstance(medium, Image) and not isinstance(medium.source, str | Path | bytes):
        yield "", "the path or the bytes of a picture", "an open one"
    if isinstance(medium, Video):
        if medium != Video(medium.source):
            asked = {name: value for name, value in vars(medium).items() if name != "source" and value}
            yield "sampling", "a clip as a whole, which the reader samples", str(asked)
        if not isinstance(medium.source, str | Path):
            yield "", "the path of a video file", "bytes" if isinstance(medium.source, bytes) else "a list of frames"
        elif Path(medium.source).is_dir():
            yield "", "the path of a video file", f"'{medium.source}', a folder of frames"


def _order_in_words(shape: Shape) -> str:
    if shape.tagged:
        return "texts that are not empty, with media between them"
    return f"at most one text, in the order {', '.join(k for k in NAMED_ORDER if k in shape.kinds)}"


def in_order(item: Item, shape: Shape) -> bool:
    """Whether the parts of an item stand as the format has them."""
    kinds = [kind_of(part) for part in item.content]
    if "" in item.content:
        return False
    if shape.tagged:
        return not any(a == b == "text" for a, b in pairwise(kinds))
    wanted = [kind for kind in NAMED_ORDER for _ in range(kinds.count(kind))]
    return kinds == wanted and kinds.count("text") <= 1 and kinds.count("video") <= 1
