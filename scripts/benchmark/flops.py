"""What the hardware can do, and the arithmetic that a workload cannot do without."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from mmembed import Embedder
from mmembed.models.features import select_media
from mmembed.models.sequence import Batch, Row, collate

REPEATS = 4


def _attention(query: Any, key: Any, value: Any, *rest: Any, **more: Any) -> int:
    return int(sdpa_flop_count(query, key, value))


def _attention_backward(gradient: Any, query: Any, key: Any, value: Any, *rest: Any, **more: Any) -> int:
    return int(sdpa_backward_flop_count(gradient, query, key, value))


_CPU_KERNELS: dict[Any, Callable[..., int]] = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}
"""Attention on a CPU, which torch's counter does not know."""


def counted(work: Callable[[], Any]) -> int:
    """Floating-point operations of matrix products, convolutions and attention."""
    counter = FlopCounterMode(display=False, custom_mapping=_CPU_KERNELS)
    with counter:
        work()
    return counter.get_total_flops()


def ceiling(dtype: torch.dtype, device: torch.device, sides: Sequence[int]) -> float:
    """The best rate of a square matrix product, in operations a second."""
    best = 0.0
    for side in sides:
        left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        for _ in range(REPEATS):
            synchronise(device)
            started = time.perf_counter()
            left @ right
            synchronise(device)
            best = max(best, 2 * side**3 / (time.perf_counter() - started))
    return best


def synchronise(device: torch.device) -> None:
    """Wait until a GPU has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def useful_flops(embedder: Embedder, rows: Sequence[Row], *, backward: bool = False) -> int:
    """What no way can do without: each distinct row and medium once, no padding, nothing computed twice.

    Args:
        embedder: passes one row at a time; as it trains, if it does.
        rows: what is embedded.
        backward: count the backward pass of what trains too.
    """
    distinct = list({row.fingerprint: row for row in rows}.values())
    lengths = Counter(len(row) for row in distinct)
    grids = Counter({medium.fingerprint: medium.grid for row in distinct for medium in row.media}.values())
    trains_tower = backward and not embedder.tower_is_frozen
    total, known_lengths, known_grids = 0, set[int](), set[tuple[int, ...]]()
    for row in distinct:
        batch = collate([row]).to(embedder.device)
        for i, grid in enumerate(map(tuple, batch.grids.tolist())):
            if grid not in known_grids:
                known_grids.add(grid)
                total += grids[grid] * _tower(embedder, select_media(batch, [i]), backward=trains_tower)
        if len(row) not in known_lengths:
            known_lengths.add(len(row))
            total += lengths[len(row)] * _language(embedder, batch, backward=backward)
    return total


def _tower(embedder: Embedder, batch: Batch, *, backward: bool) -> int:
    def work() -> None:
        with torch.set_grad_enabled(backward):
            _push(torch.cat([*embedder.vision(batch).maps]), embedder, backward)

    return counted(work)


def _language(embedder: Embedder, batch: Batch, *, backward: bool) -> int:
    with torch.no_grad():
        features = embedder.vision(batch)

    def work() -> None:
        with torch.set_grad_enabled(backward):
            _push(embedder(batch, features), embedder, backward)

    return counted(work)


def _push(out: Tensor, embedder: Embedder, backward: bool) -> None:
    if backward:
        out.sum().backward()
        embedder.zero_grad()
