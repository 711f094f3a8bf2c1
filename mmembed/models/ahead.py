"""Rows prepared ahead of the model, in worker processes: decoding and tokenizing while the model computes."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from mmembed.errors import InputError
from mmembed.items import Item
from mmembed.models.sequence import Row
from mmembed.models.settings import Side
from mmembed.timers import span
from mmembed.workers import Drain, in_order

MOST_WORKERS = 8
"""Where the number is left to us: more seldom help, and each holds rows."""
MOST_ROWS, LEAST_ROWS = 8, 4
"""Rows that travel together, at most and, where there are more, at least."""
GROUPS_A_WORKER = 4
"""Groups are cut smaller until every worker has so many: uneven ones then even out."""
CPU_MAX = Path("/sys/fs/cgroup/cpu.max")
"""Quota and period in microseconds where a container is held to some cores' worth of time (Linux, cgroup 2)."""

Numbered = Sequence[tuple[int, Item]]
"""Items and the numbers that errors call them by."""


@dataclass(frozen=True)
class _Groups:
    """Prepares the items of a group, by the group's number; picklable."""

    preprocess: Callable[[Item, Side], Row]
    numbered: Numbered
    side: Side
    size: int

    def __call__(self, group: int) -> list[Row]:
        first = group * self.size
        return [self._row(i, item) for i, item in self.numbered[first : first + self.size]]

    def _row(self, i: int, item: Item) -> Row:
        try:
            with span("preprocess"):
                return self.preprocess(item, self.side)
        except InputError as error:
            raise error.within(f"item {i}") from error


@contextmanager
def rows_ahead(
    preprocess: Callable[[Item, Side], Row], numbered: Numbered, side: Side, workers: int = 0, tokens: int = 0
) -> Iterator[Iterator[Row]]:
    """A block with the rows of items, in order; the workers end with it.

    The rows do not depend on the number of workers, nor do the counters but ``templates_rendered``. While nobody asks
    for rows, a thread takes them from the workers, each of which is at most two groups of eight rows further; few items
    start fewer workers.

    Args:
        preprocess: of the backbone; a process keeps media by itself (:meth:`Embedder.cache_media`).
        numbered: items and what errors call them.
        side: which side they are on.
        workers: most processes that prepare rows; 0 prepares each row in this process when it is asked for, without a
            thread.
        tokens: of the rows that wait to be asked for; the group that reaches them is the last.

    Raises:
        InputError: an item that cannot be used, ``item N``; or a negative number of workers.
        LostWorkerError: a worker was killed.
    """
    if workers < 0:
        raise InputError("workers", expected="at least 0", got=workers, remedy="0 prepares items in the process itself")
    used = min(workers, len(numbered) // LEAST_ROWS)
    size = _group_size(len(numbered), used)
    groups = _Groups(preprocess, numbered, side, size)
    with in_order(groups, range(-(-len(numbered) // size)), used, drain=Drain(_tokens, tokens)) as made:
        yield (row for group in made for row in group)


def usual_workers(device: torch.device | str, processes: int = 1) -> int:
    """How many workers prepare rows for a model where nobody says.

    None on a CPU, where they would take the cores that the model computes on. On a GPU a worker for each core that this
    process has to itself, up to eight.

    Args:
        device: where the model is.
        processes: of the run on this machine, which share its cores.
    """
    if torch.device(device).type == "cpu":
        return 0
    return min(MOST_WORKERS, usable_cores() // processes)


def usable_cores(quota: Path = CPU_MAX) -> int:
    """How many cores this process may use whole: a container or a scheduler gives it fewer than there are.

    Args:
        quota: the file with a container's quota; without one, or with the word ``max`` in it, there is none.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        time, period = quota.read_text().split()
        return min(cores, max(1, int(time) // int(period)))
    except (OSError, ValueError):
        return cores


def _tokens(rows: list[Row]) -> int:
    return sum(map(len, rows))


def _group_size(rows: int, workers: int) -> int:
    """Rows of a group: one where nothing travels."""
    if not workers:
        return 1
    return min(MOST_ROWS, max(LEAST_ROWS, rows // (workers * GROUPS_A_WORKER)))
