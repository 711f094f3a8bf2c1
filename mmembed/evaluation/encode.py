"""Embed many items: each distinct one once in a call, and once ever where a cache keeps it."""

from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmembed.counters import count
from mmembed.errors import InputError
from mmembed.evaluation.crew import Crew, Named, key_of
from mmembed.items import Item
from mmembed.models.settings import Side
from mmembed.progress import Advance, progress

WINDOW = 4096
WINDOW_BYTES = 256 << 20
"""Distinct items, and pictures that live in memory, held at once."""


def encode_set(
    items: Iterable[tuple[str, Item]],
    crew: Crew,
    *,
    side: Side,
    label: str | None = "encode",
    total: int | None = None,
    window: int = WINDOW,
) -> Tensor:
    """Embed named items, each distinct ``fingerprint()`` once, behind a bar, and give the rows back in order.

    Counts ``cache_hits`` for every item whose embedding was known already, in this call or in the crew's cache.

    Args:
        items: what errors call an item, and the item; read as they come, at most ``window`` distinct ones held at once.
        crew: who embeds.
        side: which side they are on.
        label: what the bar calls them; None shows none.
        total: how many there are, where ``items`` cannot tell.
        window: how many distinct items are given to the crew at once.

    Returns:
        ``[N, D]`` float32 on the CPU, one row for each of ``items``.

    Raises:
        InputError: no items, or an embedding that is not one finite row for each item.
    """
    if crew.space is not None:
        crew.space.refresh()
    rows: dict[str, int] = {}
    places: list[int] = []
    waiting: list[Named] = []
    held = 0
    embedded: list[Tensor] = []
    shown = nullcontext(_unseen) if label is None else progress(label, total)
    with shown as advance:
        for name, item in items:
            key = key_of(item, side)
            if key.name in rows:
                count("cache_hits")
                advance(1)
            else:
                rows[key.name] = len(rows)
                waiting.append(Named(name, item, key))
                held += _bytes_held(item)
            places.append(rows[key.name])
            if len(waiting) == window or held > WINDOW_BYTES:
                embedded.append(_known_or_made(waiting, crew, side, advance))
                waiting, held = [], 0
        if waiting:
            embedded.append(_known_or_made(waiting, crew, side, advance))
    if not embedded:
        raise InputError("items", expected="at least one", got="none", remedy="give something to embed")
    return torch.cat(embedded)[torch.tensor(places)]


def _unseen(done: int) -> None:
    """Takes progress that nobody looks at."""


def _known_or_made(waiting: list[Named], crew: Crew, side: Side, advance: Advance) -> Tensor:
    """Vectors ``[N, D]`` of distinct items: out of the cache, or made now."""
    nothing: tuple[list[int], Tensor] = ([], torch.empty(0, 0))
    found, known = nothing if crew.space is None else crew.space.take([named.key for named in waiting])
    advance(len(found))
    missing = sorted(set(range(len(waiting))) - set(found))
    if not missing:
        return known
    made = crew.encode([waiting[i] for i in missing], side, advance)
    out = torch.empty(len(waiting), made.shape[1])
    out[missing] = made
    if found:
        out[found] = known
    return out


def _bytes_held(item: Item) -> int:
    """Bytes of files and pixels that an item holds in memory."""
    sources: list[Any] = []
    for medium in item.media:
        sources += medium.source if isinstance(medium.source, tuple) else [medium.source]
    return sum(_source_bytes(source) for source in sources)


def _source_bytes(source: Any) -> int:
    if isinstance(source, str | Path):
        return 0
    return len(source) if isinstance(source, bytes) else 3 * source.width * source.height
