"""Vectors without a model: the loss over a large batch, and the best of a gallery."""

import importlib.util
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mmembed.counters import counting
from mmembed.index.topk import top_k
from mmembed.losses.candidates import Candidates
from mmembed.losses.settings import Contrastive
from scripts.benchmark.bench import Bench
from scripts.benchmark.measuring import Comparison

TOP, MILLION_TOP = 50, 100
TEMPERATURE = 0.05
FULL_MATRICES = 3
"""So many of the plain loss's matrices live at once: scores, their softmax, and a gradient."""
ROUNDS_OF_LARGE = 2


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
    num_queries, num_targets, width = bench.size.gallery
    queries, targets = unit_vectors(num_queries, width, 0), unit_vectors(num_targets, width, 1)
    return Comparison(
        lambda: top_k(queries, targets, TOP)[0],
        lambda: (queries @ targets.T).topk(TOP, dim=1).values,
    )


def million(bench: Bench) -> Comparison:
    """The same of a gallery whose scores nobody would hold, beside faiss; its index is filled before it is timed."""
    num_queries, num_targets, width = bench.size.million
    queries, targets = unit_vectors(num_queries, width, 0), unit_vectors(num_targets, width, 1)
    there = importlib.util.find_spec("faiss") is not None
    faiss = Faiss(queries, targets)
    return Comparison(
        lambda: top_k(queries, targets, MILLION_TOP)[0],
        faiss if there else None,
        timed=ROUNDS_OF_LARGE,
        note="" if there else "faiss is not installed (pip install faiss-cpu): plain did not run",
    )


class Faiss:
    """Exact search by faiss, on as many threads as torch has; the index is filled when it is first asked."""

    def __init__(self, queries: Tensor, targets: Tensor) -> None:
        self.queries, self.targets = queries, targets
        self.index: Any = None

    def __call__(self) -> Tensor:
        """The best scores of every query."""
        import faiss

        if self.index is None:
            faiss.omp_set_num_threads(torch.get_num_threads())
            self.index = faiss.IndexFlatIP(self.targets.shape[1])
            self.index.add(self.targets.numpy())
        return torch.from_numpy(self.index.search(self.queries.numpy(), MILLION_TOP)[0])


def free_memory(device: torch.device) -> int:
    """Bytes that are free on a GPU or in the machine (Linux)."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    facts = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    return int(facts["MemAvailable"].split()[0]) << 10
