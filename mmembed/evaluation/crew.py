"""The processes that embed together: one drives, the others serve, and each takes the next unit of work when free.

Units are cut by estimated cost and taken dearest first, so that nobody waits long for the last one; no row is added to
even them out, none is embedded twice, and what goes wrong in one process is raised in the driving one.
"""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from mmembed.errors import InputError
from mmembed.index.embedding_cache import Key, Space
from mmembed.items import Item, Video
from mmembed.processes import ALONE, Processes, everyone
from mmembed.progress import Advance

Side: TypeAlias = Literal["query", "target"]

UNIT_ROWS = 512
UNIT_COST = 1 << 19
"""Tokens, as estimated: about a minute of a large model's work, so that little is lost when a run is killed."""
UNITS_A_PROCESS = 4
"""Units are cut smaller until every process can have so many: uneven ones then even out."""
PICTURE_COST, TEXT_COST = 256, 0.25
"""Tokens of a picture or frame and of a character: guesses; dynamic units forgive them."""
USUAL_FRAMES = 8
_NO_MORE = 1 << 40


class Encoder(Protocol):
    """Embeds items of either side; ``Embedder.encode`` is one."""

    def __call__(self, items: Sequence[Item], *, side: Side) -> Tensor:
        """Embeddings ``[N, D]`` of items, in their order; a pooler may treat the two sides differently."""
        ...


@dataclass(frozen=True)
class Job:
    """Distinct items to embed, and the rows of each unit of work."""

    items: Sequence[Item]
    keys: Sequence[Key]
    side: Side
    units: Sequence[Sequence[int]]


@dataclass
class _Share:
    """What one process embedded of a job: rows and their vectors, or the problem that ended it."""

    rows: list[int] = field(default_factory=list)
    vectors: list[Tensor] = field(default_factory=list)
    problem: Exception | None = None


class Crew:
    """Embeds items on all processes of a run; every process makes one with the same arguments.

    The first process calls :meth:`encode` as often as it likes and then :meth:`dismiss`; the others :meth:`serve`.

    Args:
        encode: this process's model.
        space: where vectors are kept; each process writes what it embedded as soon as a unit is done.
        processes: of the run.
    """

    def __init__(self, encode: Encoder, *, space: Space | None = None, processes: Processes = ALONE) -> None:
        self._encode, self.space, self.processes = encode, space, processes
        self._store = _common_store(processes)
        self._jobs = 0
        self._taken: Counter[int] = Counter()

    def encode(self, items: Sequence[Item], keys: Sequence[Key], side: Side, advance: Advance) -> Tensor:
        """Embed distinct items on all processes, called by the first one.

        Args:
            items: N items.
            keys: their names, for the cache.
            side: which side they are on.
            advance: told how many rows are under way or done.

        Returns:
            ``[N, D]`` float32 on the CPU, in order.

        Raises:
            InputError: an item that cannot be embedded, on any process.
        """
        units = plan_units([cost(item) for item in items], self.processes.world)
        job: Job = self.processes.agree(Job(items, keys, side, units))
        return self._put_together(job, self._work(job, advance))

    def serve(self) -> None:
        """Embed what the first process asks for until it dismisses the crew."""
        while (job := self.processes.agree(None)) is not None:
            share = self._work(job, lambda rows: None)
            problems, _ = self._report(share)
            if share.rows and not problems:
                dist.send(torch.tensor(share.rows), dst=0)
                dist.send(torch.cat(share.vectors), dst=0)

    def dismiss(self) -> None:
        """Let the serving processes go."""
        self.processes.agree(None)

    def _work(self, job: Job, advance: Advance) -> _Share:
        """Take units until none is left; a problem ends the job for everyone."""
        self._jobs += 1
        share, seen = _Share(), 0
        while (number := self._claim()) < len(job.units):
            rows = job.units[number]
            try:
                vectors = _embed([job.items[row] for row in rows], job.side, self._encode)
            except (InputError, RuntimeError, OSError) as error:
                self._claim(_NO_MORE)
                share.problem = error
                break
            if self.space is not None:
                self.space.add([job.keys[row] for row in rows], vectors)
            share.rows += rows
            share.vectors.append(vectors)
            # units are taken in order: whoever took it, all before this one is under way or done
            begun = sum(map(len, job.units[: number + 1]))
            advance(begun - seen)
            seen = begun
        advance(len(job.items) - seen)
        return share

    def _claim(self, units: int = 1) -> int:
        """The number of the next unit that nobody has taken."""
        if self._store is None:
            self._taken[self._jobs] += units
            return self._taken[self._jobs] - units
        return int(self._store.add(f"job {self._jobs}", units)) - units

    def _put_together(self, job: Job, share: _Share) -> Tensor:
        """The shares of all processes as ``[N, D]``, on the first one."""
        problems, sizes = self._report(share)
        if problems:
            raise problems[0]
        out = torch.empty(len(job.items), max(width for _, width in sizes))
        if share.rows:
            out[torch.tensor(share.rows)] = torch.cat(share.vectors)
        for rank, (count, width) in enumerate(sizes[1:], start=1):
            if count:
                rows, vectors = torch.empty(count, dtype=torch.int64), torch.empty(count, width)
                dist.recv(rows, src=rank)
                dist.recv(vectors, src=rank)
                out[rows] = vectors
        return out

    def _report(self, share: _Share) -> tuple[list[Exception], list[tuple[int, int]]]:
        """What went wrong anywhere, and the rows and width that each process brings."""
        problem = share.problem
        if problem is not None and not isinstance(problem, InputError) and self.processes.world > 1:
            # others may not be able to read what a library put into its error
            problem = RuntimeError(f"process {self.processes.rank}: {problem}")
        width = share.vectors[0].shape[1] if share.vectors else 0
        mine = (problem, len(share.rows), width)
        reports = everyone(mine) if self.processes.world > 1 else [mine]
        return [report[0] for report in reports if report[0] is not None], [report[1:] for report in reports]


def plan_units(costs: Sequence[float], world: int) -> list[list[int]]:
    """Cut rows into units of work, the dearest rows first.

    Args:
        costs: of each row, estimated.
        world: how many processes share them.

    Returns:
        The rows of each unit, each row in exactly one.
    """
    share = 1 if world == 1 else UNITS_A_PROCESS * world
    most_rows, most_cost = min(UNIT_ROWS, -(-len(costs) // share)), min(UNIT_COST, sum(costs) / share)
    units: list[list[int]] = []
    held = 0.0
    for row in sorted(range(len(costs)), key=lambda row: -costs[row]):
        if not units or len(units[-1]) == most_rows or held + costs[row] > most_cost:
            units.append([])
            held = 0.0
        units[-1].append(row)
        held += costs[row]
    return units


def cost(item: Item) -> float:
    """Roughly how many tokens an item has, without opening any file."""
    pictures = sum((part.num_frames or USUAL_FRAMES) if isinstance(part, Video) else 1 for part in item.media)
    return TEXT_COST * (len(item.text) + len(item.instruction or "")) + PICTURE_COST * pictures


def _embed(items: list[Item], side: Side, encode: Encoder) -> Tensor:
    vectors = encode(items, side=side).detach().float().cpu()
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


def _common_store(processes: Processes) -> Any:
    """Where the processes count the units they took; None for one that is alone."""
    if processes.world == 1:
        return None
    host = os.environ["MASTER_ADDR"]
    store = TCPStore(host, 0, is_master=True, wait_for_workers=False) if processes.first else None
    port = processes.agree(store.port if store else None)
    return store or TCPStore(host, port, is_master=False, wait_for_workers=False)
