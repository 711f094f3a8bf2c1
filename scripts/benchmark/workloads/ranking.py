"""Vectors without a model: the loss over a large batch, and the best of a gallery."""

import importlib.util
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from mmembed.counters import counting
from mmembed.index.topk import top_k
from mmembed.losses.candidates import Candidates
from mmembed.losses.settings import Contrastive
from scripts.benchmark.bench import Bench
from scripts.benchmark.measuring import Comparison

Search: TypeAlias = Callable[[Tensor], tuple[Tensor, Tensor]]
"""From queries to the best scores and their places."""
TOP, MILLION_TOP = 50, 100
TEMPERATURE = 0.05
FULL_MATRICES = 3
"""So many of the plain loss's matrices live at once: scores, their softmax, and a gradient."""
ROUNDS_OF_LARGE = 2
BLOCK = 1 << 15
"""Targets whose scores the plain way holds at once on a GPU."""


def unit_vectors(rows: int, width: int, seed: int, device: torch.device | str = "cpu") -> Tensor:
    """Random directions ``[rows, width]``."""
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(rows, width, generator=generator), dim=-1).to(device)


def loss(bench: Bench) -> Comparison:
    """The loss and its gradient; once, for it takes minutes on a CPU."""
    rows, width = bench.size.loss
    queries, targets = (unit_vectors(rows, width, seed, bench.device).requires_grad_() for seed in (0, 1))
    numbers = torch.arange(rows, device=bench.device)
    settings = Contrastive(temperature=TEMPERATURE, mask_duplicates=False, block_rows=min(1024, max(1, rows // 16)))
    objective = settings.build().to(bench.device)
    own = torch.ones(rows, dtype=torch.bool, device=bench.device)
    none = torch.full_like(numbers, -1)
    candidates = Candidates(numbers, own, numbers, numbers + rows, none, torch.zeros_like(numbers))
    seen: dict[str, int] = {}

    def gradients(value: Tensor) -> Tensor:
        found = torch.autograd.grad(value, [queries, targets])
        return torch.cat([tensor.flatten() for tensor in found])

    def ours() -> Tensor:
        with counting() as counters:
            found = gradients(objective(queries, targets, candidates).share)
        seen.update(counters)
        return found

    def plain() -> Tensor:
        return gradients(F.cross_entropy(queries @ targets.T / TEMPERATURE, numbers))

    def facts() -> dict[str, Any]:
        full = 4 * rows * rows
        held = seen["score_bytes_at_once"]
        return {"score_bytes_at_once": held, "full_matrix_bytes": full, "share_of_full_matrix": held / full}

    needed, there = FULL_MATRICES * 4 * rows * rows * 3 // 2, free_memory(bench.device)
    fits = there > needed
    note = "" if fits else f"plain needs {needed >> 20} MiB, {there >> 20} are free: it did not run"
    return Comparison(
        ours, plain if fits else None, gradient=True, rows=rows, facts=facts,
        useful=lambda: 3 * 2 * rows * rows * width,
        timed=0 if rows > 8192 and bench.device.type == "cpu" else None, note=note,
    )  # fmt: skip


def gallery(bench: Bench) -> Comparison:
    """The best targets of every query; the plain way holds every score at once."""
    queries, targets = _vectors(bench, bench.size.gallery)
    return Comparison(
        lambda: top_k(queries, targets, TOP)[0],
        lambda: (queries @ targets.T).topk(TOP, dim=1).values,
    )


def million(bench: Bench) -> Comparison:
    """The same of a gallery whose scores nobody would hold, beside faiss; on a GPU beside torch, block by block."""
    queries, targets = _vectors(bench, bench.size.million)
    search, note = _plain_search(targets)
    found: dict[str, Tensor] = {}

    def ours() -> Tensor:
        scores, found["ours"] = top_k(queries, targets, MILLION_TOP)
        return scores

    def plain() -> Tensor:
        assert search is not None
        scores, found["plain"] = search(queries)
        return scores

    def facts() -> dict[str, float]:
        if search is None:
            return {}
        own, other = found["ours"].cpu(), found["plain"].cpu()
        return {"same_targets": shared(own, other), "same_best": float((own[:, 0] == other[:, 0]).double().mean())}

    return Comparison(ours, plain if search else None, facts=facts, timed=ROUNDS_OF_LARGE, note=note)


def block_search(targets: Tensor, queries: Tensor) -> tuple[Tensor, Tensor]:
    """The best scores and places ``[Q, k]`` in float32, of one block of targets after the other."""
    scores = torch.empty(len(queries), 0, device=queries.device)
    places = torch.empty(len(queries), 0, dtype=torch.long, device=queries.device)
    for start in range(0, len(targets), BLOCK):
        block = queries @ targets[start : start + BLOCK].T
        best = block.topk(min(MILLION_TOP, block.shape[1]), dim=1)
        scores, places = torch.cat([scores, best.values], 1), torch.cat([places, best.indices + start], 1)
        scores, kept = scores.topk(min(MILLION_TOP, scores.shape[1]), dim=1)
        places = places.gather(1, kept)
    return scores, places


def faiss_search(targets: Tensor) -> Search:
    """Exact search by faiss, on as many threads as torch has, in an index that is filled here."""
    import faiss

    faiss.omp_set_num_threads(torch.get_num_threads())
    index: Any = faiss.IndexFlatIP(targets.shape[1])
    index.add(targets.numpy())

    def search(queries: Tensor) -> tuple[Tensor, Tensor]:
        scores, places = index.search(queries.numpy(), MILLION_TOP)
        return torch.from_numpy(scores), torch.from_numpy(places)

    return search


def shared(own: Tensor, other: Tensor) -> float:
    """The share of the places ``[Q, k]`` that the other has too, in any order."""
    return float(torch.stack([torch.isin(a, b) for a, b in zip(own, other, strict=True)]).double().mean())


def free_memory(device: torch.device) -> int:
    """Bytes that are free on a GPU or in the machine (Linux)."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    facts = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    return int(facts["MemAvailable"].split()[0]) << 10


def _vectors(bench: Bench, shape: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    num_queries, num_targets, width = shape
    return unit_vectors(num_queries, width, 0, bench.device), unit_vectors(num_targets, width, 1, bench.device)


def _plain_search(targets: Tensor) -> tuple[Search | None, str]:
    """The plain way where there is one, and what to know of it."""
    if targets.device.type == "cuda":
        # faiss-cpu would be another machine
        return partial(block_search, targets), "plain is torch on the same GPU, a block of targets at a time"
    if importlib.util.find_spec("faiss") is None:
        return None, "faiss is not installed (pip install faiss-cpu): plain did not run"
    return faiss_search(targets), "the index of faiss, a copy of the targets, is filled before"
