"""Embed many items, each distinct one once."""

from collections.abc import Callable, Iterable, Sequence
from typing import Literal, Protocol, TypeAlias

import torch
from torch import Tensor

from mmembed.counters import count
from mmembed.errors import InputError
from mmembed.items import Item

Encode: TypeAlias = Callable[[Sequence[Item]], Tensor]
"""Embeds items of one side: ``[N, D]`` in their order."""


class Encoder(Protocol):
    """Embeds items of either side; ``Embedder.encode`` is one."""

    def __call__(self, items: Sequence[Item], *, side: Literal["query", "target"]) -> Tensor:
        """Embeddings ``[N, D]`` of items, in their order; a pooler may treat the two sides differently."""
        ...


def encode_set(items: Iterable[Item], encode: Encode, *, window: int = 1024) -> Tensor:
    """Embed ``items``, each distinct ``fingerprint()`` once, and give the rows back in order.

    Counts ``cache_hits`` for every item whose embedding was there already.

    Args:
        items: read as they come; at most ``window`` distinct ones are held at once.
        encode: the model.
        window: how many distinct items ``encode`` gets in a call.

    Returns:
        ``[N, D]`` float32 on the CPU, one row for each of ``items``.

    Raises:
        InputError: no items, or an embedding that is not one finite row for each item.
    """
    rows: dict[str, int] = {}
    places: list[int] = []
    waiting: list[Item] = []
    embedded: list[Tensor] = []
    for item in items:
        name = item.fingerprint()
        if name in rows:
            count("cache_hits")
        else:
            rows[name] = len(rows)
            waiting.append(item)
        places.append(rows[name])
        if len(waiting) == window:
            embedded.append(_encode_all(waiting, encode))
            waiting = []
    if waiting:
        embedded.append(_encode_all(waiting, encode))
    if not embedded:
        raise InputError("items", expected="at least one", got="none", remedy="give something to embed")
    return torch.cat(embedded)[torch.tensor(places)]


def _encode_all(items: list[Item], encode: Encode) -> Tensor:
    vectors = encode(items).detach().float().cpu()
    if vectors.ndim != 2 or len(vectors) != len(items):
        raise InputError(
            "embeddings",
            expected=f"[{len(items)}, D], one row for each item",
            got=list(vectors.shape),
            remedy="let the encoder return one vector for each item, in order",
        )
    bad = (~vectors.isfinite().all(dim=1)).nonzero().flatten().tolist()
    if bad:
        raise InputError(
            "embeddings",
            expected="finite numbers",
            got=f"NaN or infinity in {len(bad)} of {len(items)} rows, first for {_short(items[bad[0]])}",
            remedy="try dtype float32, or look at that item",
        )
    return vectors


def _short(item: Item) -> str:
    text = item.text[:60]
    return f"'{text}'" if text else f"an item with {len(item.media)} media"
