"""The processes that embed together: one drives, the others serve, and each takes the next unit of work when free.

Units are cut by estimated cost and taken dearest first, so that nobody waits long for the last one; no row is added to
even them out, none is embedded twice, and what goes wrong in one process is raised in the driving one.
"""

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Protocol, Self

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from mmembed.errors import InputError, LostProcessError
from mmembed.evaluation.units import cost, plan_units
from mmembed.files import fingerprint
from mmembed.index.embedding_cache import Key, Space, differences
from mmembed.items import Item
from mmembed.models.settings import Side
from mmembed.processes import ALONE, Processes, everyone
from mmembed.progress import Advance

FOREVER = timedelta(days=365)
_NO_MORE = 1 << 40


class Encoder(Protocol):
    """Embeds items of either side; ``Embedder.encode`` is one."""

    def __call__(self, items: Sequence[Item], *, side: Side) -> Tensor:
        """Embeddings ``[N, D]`` of items, in their order; a pooler may treat the two sides differently."""
        ...


@dataclass(frozen=True)
class Named:
    """An item to embed: what errors call it, and its key in the cache."""

    name: str
    item: Item
    key: Key


@dataclass(frozen=True)
class Job:
    """Distinct items to embed, and the rows of each unit of work."""

    items: Sequence[Named]
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

    The first process calls :meth:`encode` as often as it likes, the others :meth:`serve`; as a context the crew is
    dismissed at its end, unless the end is one that the others share.

    Args:
        encode: this process's model.
        space: where vectors are kept; each process writes what it embedded as soon as a unit is done.
        processes: of the run.
        scale: the model gives vectors as they are, and they are scaled to unit length once texts are averaged.
    """

    def __init__(
        self, encode: Encoder, *, space: Space | None = None, processes: Processes = ALONE, scale: bool = False
    ) -> None:
        self._encode, self.space, self.processes, self.scale = encode, space, processes, scale
        self._store = _common_store(processes)
        self._jobs = 0
        self._taken: Counter[int] = Counter()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        # whoever was interrupted, or lost another one, must not wait for the others
        if self.processes.first and (kind is None or issubclass(kind, Exception)) and kind is not LostProcessError:
            self._give(None)

    def encode(self, items: Sequence[Named], side: Side, advance: Advance) -> Tensor:
        """Embed distinct items on all processes, called by the first one.

        Args:
            items: N items.
            side: which side they are on.
            advance: told how many rows are under way or done.

        Returns:
            ``[N, D]`` float32 on the CPU, in order.

        Raises:
            InputError: an item that cannot be embedded, on any process; it is named.
            LostProcessError: another process is gone.
        """
        job = Job(items, side, plan_units([cost(named.item) for named in items], self.processes.world))
        with self._connected():
            self._give(job)
        share = self._work(job, advance)
        with self._connected():
            problems, sizes = self._report(share)
            if not problems:
                return self._put_together(job, share, sizes)
        raise problems[0]

    def serve(self) -> None:
        """Embed what the first process asks for until it dismisses the crew."""
        while (job := self._wait()) is not None:
            share = self._work(job, lambda rows: None)
            problems, _ = self._report(share)
            if share.rows and not problems:
                dist.send(torch.tensor(share.rows), dst=0)
                dist.send(torch.cat(share.vectors), dst=0)

    def _give(self, job: Job | None) -> None:
        """Tell the others what to do next; nothing sends them away."""
        if self._store is not None:
            self._store.set(f"given {self._jobs}", "")
        self.processes.agree(job)

    def _wait(self) -> Job | None:
        """What to do next. The first process may read, rank and write for hours; a broadcast would not wait so long."""
        self._store.wait([f"given {self._jobs}"], FOREVER)
        job: Job | None = self.processes.agree(None)
        return job

    def _work(self, job: Job, advance: Advance) -> _Share:
        """Take units until none is left; a problem ends the job for everyone."""
        self._jobs += 1
        share, seen = _Share(), 0
        while (number := self._claim()) < len(job.units):
            rows = job.units[number]
            try:
                vectors = self._embed([job.items[row] for row in rows], job.side)
            except Exception as error:
                # whatever it is, the others wait to hear of it, and the first process raises it
                self._claim(_NO_MORE)
                share.problem = error
                return share
            share.rows += rows
            share.vectors.append(vectors)
            # units are taken in order: whoever took it, all before this one is under way or done
            begun = sum(map(len, job.units[: number + 1]))
            advance(begun - seen)
            seen = begun
        advance(len(job.items) - seen)
        return share

    def _embed(self, unit: list[Named], side: Side) -> Tensor:
        """Vectors ``[N, D]`` of a unit of work, and in the cache."""
        try:
            vectors = self._encode([named.item for named in unit], side=side).detach().float().cpu()
        except InputError as error:
            raise _by_name(error, unit) from error
        _check(vectors, unit)
        for named in unit:
            if key_of(named.item, side) != named.key:
                raise InputError(
                    named.name, expected="media that stay as they are", got="others than a moment ago",
                    remedy="let nothing write to them, and evaluate again",
                )  # fmt: skip
        if self.space is not None:
            self.space.add([named.key for named in unit], vectors)
        return vectors

    def _claim(self, units: int = 1) -> int:
        """The number of the next unit that nobody has taken."""
        if self._store is None:
            self._taken[self._jobs] += units
            return self._taken[self._jobs] - units
        return int(self._store.add(f"job {self._jobs}", units)) - units

    def _put_together(self, job: Job, share: _Share, sizes: Sequence[tuple[int, int]]) -> Tensor:
        """The shares of all processes as ``[N, D]``, on the first one."""
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
            problem = RuntimeError(f"process {self.processes.rank}: {type(problem).__name__}: {problem}")
        width = share.vectors[0].shape[1] if share.vectors else 0
        mine = (problem, len(share.rows), width)
        reports = everyone(mine) if self.processes.world > 1 else [mine]
        return [report[0] for report in reports if report[0] is not None], [report[1:] for report in reports]

    @contextmanager
    def _connected(self) -> Iterator[None]:
        """A block that talks to the others: what torch says of a closed connection is that one of them is gone."""
        try:
            yield
        except RuntimeError as error:
            if self.processes.world == 1:
                raise
            raise LostProcessError(f"another process of the run is gone: {error}") from error


def key_of(item: Item, side: Side) -> Key:
    """The name of an item's vector among those of one model."""
    return Key(fingerprint(side, item.fingerprint()), item.content_fingerprint())


def check_one_model(parts: Mapping[str, str], processes: Processes) -> None:
    """Refuse processes that hold different models; every process calls it with what its own vectors depend on.

    Raises:
        InputError: on every process; it names the first one that differs from process 0, and what differs.
    """
    first, *others = everyone(dict(parts)) if processes.world > 1 else [parts]
    for rank, theirs in enumerate(others, start=1):
        if theirs != first:
            raise InputError(
                f"process {rank}", expected="the model of process 0", got="; ".join(differences(theirs, first)),
                remedy="give every machine the same files, devices and environment",
            )  # fmt: skip


def _by_name(error: InputError, unit: Sequence[Named]) -> InputError:
    """The error under the item's name, where the encoder says which of its items it is about."""
    found = re.fullmatch(r"item (\d+): (.*)", error.where, re.DOTALL)
    if found is None or int(found[1]) >= len(unit):
        return error
    inner = InputError(found[2], expected=error.expected, got=error.got, remedy=error.remedy)
    return inner.within(unit[int(found[1])].name)


def _check(vectors: Tensor, unit: Sequence[Named]) -> None:
    if vectors.ndim != 2 or len(vectors) != len(unit):
        raise InputError(
            "embeddings",
            expected=f"[{len(unit)}, D], one row for each item",
            got=list(vectors.shape),
            remedy="let the encoder return one vector for each item, in order",
        )
    bad = (~vectors.isfinite().all(dim=1)).nonzero().flatten().tolist()
    if bad:
        raise InputError(
            f"embedding of {unit[bad[0]].name}",
            expected="finite numbers",
            got=f"NaN or infinity, in {len(bad)} of {len(unit)} embeddings",
            remedy="try dtype float32, or look at that item",
        )


def _common_store(processes: Processes) -> Any:
    """Where the processes count the units they took; None for one that is alone."""
    if processes.world == 1:
        return None
    host = os.environ["MASTER_ADDR"]
    store = TCPStore(host, 0, is_master=True, wait_for_workers=False) if processes.first else None
    port = processes.agree(store.port if store else None)
    return store or TCPStore(host, port, is_master=False, wait_for_workers=False)
