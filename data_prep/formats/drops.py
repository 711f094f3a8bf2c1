"""What can be left out of pairs, so that a format can hold them."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from data_prep.formats import Holds, Shape
from data_prep.formats.held import NAMED_ORDER, in_order
from mmembed.data.values import kind_of
from mmembed.items import Image, Item, Negative, Pair, Part, Video


def _without_instruction(item: Item, shape: Shape) -> Item:
    return replace(item, instruction=None)


def _without_layout(item: Item, shape: Shape) -> Item:
    return item if item.layout in shape.layouts else replace(item, layout=None)


def _without_regions(item: Item, shape: Shape) -> Item:
    content = tuple(Image(part.source) if isinstance(part, Image) else part for part in item.content)
    return replace(item, content=content)


def _without_sampling(item: Item, shape: Shape) -> Item:
    content = tuple(Video(part.source) if isinstance(part, Video) else part for part in item.content)
    return replace(item, content=content)


def _in_fields(item: Item, shape: Shape) -> Item:
    """The item in the order that the format has; its texts are joined where they cannot stand apart."""
    if in_order(item, shape):
        return item
    if shape.tagged:
        content: list[Part] = []
        for part in item.content:
            if isinstance(part, str) and content and isinstance(content[-1], str):
                content[-1] += part
            elif part != "":
                content.append(part)
        return replace(item, content=tuple(content))
    texts = [stripped for part in item.content if isinstance(part, str) and (stripped := part.strip())]
    media = sorted(item.media, key=lambda medium: NAMED_ORDER.index(kind_of(medium)))
    text = (" ".join(texts),) if texts else ()
    return replace(item, content=(*media, *text))


def _not_verbatim(item: Item, shape: Shape) -> Item:
    """The item as the format reads it; a verbatim one has a new line between media and text, as MMEB writes it."""
    if item.verbatim == shape.verbatim:
        return item
    if shape.verbatim and item.media and item.layout is None:
        breaks = [f"\n{part}" if isinstance(part, str) and i else part for i, part in enumerate(item.content)]
        return replace(item, content=tuple(breaks), verbatim=True)
    return replace(item, verbatim=shape.verbatim)


ITEM_DROPS: dict[str, Callable[[Item, Shape], Item]] = {
    "instruction": _without_instruction,
    "layout": _without_layout,
    "regions": _without_regions,
    "sampling": _without_sampling,
    "order": _in_fields,
    "verbatim": _not_verbatim,
}
"""What can be left out of items, in the order in which that is done."""


def _first_positive(pair: Pair) -> Pair:
    scores = (*pair.teacher_scores[:1], *pair.teacher_scores[len(pair.positives) :])
    return replace(pair, positives=pair.positives[:1], target_ids=pair.target_ids[:1], teacher_scores=scores)


def _no_negatives(pair: Pair) -> Pair:
    return replace(pair, negatives=(), teacher_scores=pair.teacher_scores[: len(pair.positives)])


PAIR_DROPS: dict[str, Callable[[Pair], Pair]] = {
    "positives": _first_positive,
    "negatives": _no_negatives,
    "query_id": lambda pair: replace(pair, query_id=""),
    "target_ids": lambda pair: replace(pair, target_ids=()),
    "negative_ids": lambda pair: _negatives(pair, lambda n: replace(n, target_id="")),
    "class_id": lambda pair: replace(pair, class_id=""),
    "teacher_scores": lambda pair: replace(pair, teacher_scores=()),
    "provenance": lambda pair: _negatives(pair, lambda n: replace(n, miner="", rank=None, score=None)),
}
"""What can be left out of pairs: all positives but the first, all negatives, and the fields that the names say."""

DROPS = (*PAIR_DROPS, *ITEM_DROPS)
"""Fields that ``--drop`` knows when a table is written in another format."""


def without(pair: Pair, field: str, holds: Holds) -> Pair:
    """The pair without what one of :data:`DROPS` names; the same pair where it has none."""
    if field in PAIR_DROPS:
        return PAIR_DROPS[field](pair)
    drop = ITEM_DROPS[field]
    return _items(pair, lambda item: drop(item, holds.query), lambda item: drop(item, holds.target))


def folded(pair: Pair) -> Pair:
    """The pair with its instructions as the first words of its texts."""
    return _items(pair, _fold, _fold)


def held(pair: Pair, holds: Holds, drops: tuple[str, ...], counts: Counter[str], *, fold: bool = False) -> Pair:
    """A pair less what is to be left out; ``counts`` takes in words what that changed."""
    if fold and (changed := folded(pair)) != pair:
        counts["instructions written into texts"] += 1
        pair = changed
    for field in (drop for drop in DROPS if drop in drops):
        if (changed := without(pair, field, holds)) != pair:
            counts[f"{field} left out"] += 1
            pair = changed
    return pair


def held_item(item: Item, shape: Shape, drops: tuple[str, ...], *, fold: bool = False) -> Item:
    """An item less what is to be left out."""
    item = _fold(item) if fold else item
    for field in (drop for drop in ITEM_DROPS if drop in drops):
        item = ITEM_DROPS[field](item, shape)
    return item


def _fold(item: Item) -> Item:
    if item.instruction is None or item.layout is not None:
        return item
    content = list(item.content)
    first = next((i for i, part in enumerate(content) if isinstance(part, str)), None)
    if first is None:
        content.append(item.instruction)
    else:
        content[first] = f"{item.instruction} {content[first]}"
    return replace(item, content=tuple(content), instruction=None)


def _items(pair: Pair, of_query: Callable[[Item], Item], of_target: Callable[[Item], Item]) -> Pair:
    changed = _negatives(pair, lambda negative: replace(negative, item=of_target(negative.item)))
    return replace(changed, query=of_query(pair.query), positives=tuple(map(of_target, pair.positives)))


def _negatives(pair: Pair, change: Callable[[Negative], Negative]) -> Pair:
    return replace(pair, negatives=tuple(map(change, pair.negatives)))
