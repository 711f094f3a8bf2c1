"""Work done ahead in other processes and handed over in order: the same values for any number of them.

Training prepares its batches so, and encoding its rows. The tensors of a value travel in one piece of shared memory,
never through a pipe; an InputError leaves a worker as it was; what a worker counts is counted where it was asked.
"""

import atexit
import copy
import re
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mmembed import counters
from mmembed.errors import InputError
from mmembed.timers import span

T = TypeVar("T")
V = TypeVar("V")

AHEAD = 2
"""Values that each worker makes before they are asked for: the bound of what is held."""
_ALIGNED = 64
"""Bytes that each tensor of a piece begins at a multiple of."""
_LOST = re.compile(r"DataLoader worker \(pid.*|Pin memory thread exited.*", re.DOTALL)


class LostWorkerError(InputError):
    """A worker process was killed, most often for memory."""


@contextmanager
def in_order(
    make: Callable[[int], T], keys: Sequence[int], workers: int, *, pin: bool = False, copied: bool = False
) -> Iterator[Iterator[T]]:
    """A block with the values of ``make`` for ``keys``, in order; its workers end with it.

    The global random state is left alone.

    Args:
        make: makes a value; picklable, and the value too.
        keys: what to make.
        workers: processes that make them; 0 makes each in this process when it is asked for.
        pin: put tensors that come from workers into pinned memory, for a copy to a GPU that nobody waits for.
        copied: take tensors out of shared memory when they come, for values that are kept for long: the memory that is
            shared is then bounded by :data:`AHEAD`.

    Raises:
        InputError: what ``make`` raised, as it was.
        LostWorkerError: a worker was killed.
    """
    if workers == 0:
        yield (make(key) for key in keys)
        return
    loader: DataLoader[Any] = DataLoader(
        _Sending(make),
        batch_size=None,
        sampler=keys,
        num_workers=workers,
        prefetch_factor=AHEAD,
        pin_memory=pin,
        collate_fn=_as_it_is,
        worker_init_fn=_outlive_signals,
        generator=torch.Generator().manual_seed(0),
    )
    with lost_workers_told(), _ended(iter(loader)) as sent:
        yield _received(sent, copied)


@contextmanager
def lost_workers_told() -> Iterator[None]:
    """Say in words that a worker was killed: torch raises that in whatever the process is at.

    Raises:
        LostWorkerError: so it was.
    """
    try:
        yield
    except RuntimeError as error:
        if not _LOST.match(str(error)):
            raise
        raise _lost(error) from error


def _lost(error: Exception) -> LostWorkerError:
    return LostWorkerError(
        "workers", expected="worker processes that live", got=f"one that ended: {error}",
        remedy="use fewer of them, or give more memory (in a container, of /dev/shm too)",
    )  # fmt: skip


@dataclass(frozen=True)
class _Place:
    """Where a tensor lies in the piece that it travels in."""

    start: int
    shape: tuple[int, ...]
    dtype: torch.dtype


@dataclass(frozen=True)
class _Sent:
    """What a worker made: the value with places for its tensors, which lie in ``piece``; or what was wrong."""

    value: Any
    piece: Tensor
    counted: dict[str, int]
    problem: InputError | None = None

    def pin_memory(self) -> "_Sent":
        """The same in pinned memory; a DataLoader calls it."""
        return replace(self, piece=self.piece.pin_memory())


class _Sending(Dataset[_Sent]):
    """Makes values ready to be sent."""

    def __init__(self, make: Callable[[int], Any]) -> None:
        self.make = make

    def __getitem__(self, key: int) -> _Sent:
        with counters.counting() as counted:
            try:
                value, problem = self.make(key), None
            except InputError as error:
                value, problem = None, error
        value, piece = packed(value)
        return _Sent(value, piece, dict(counted), problem)


def _received(sent: Iterator[_Sent], copied: bool) -> Iterator[Any]:
    """The values of what comes, or the error of the first that has one; their work is counted here."""
    while True:
        with span("wait"):
            one = _next(sent)
        if one is None:
            return
        for name, amount in one.counted.items():
            counters.count(name, amount)
        if one.problem is not None:
            raise one.problem
        yield unpacked(one.value, one.piece.clone() if copied else one.piece)


def _next(sent: Iterator[_Sent]) -> _Sent | None:
    """What comes next; None at the end.

    Raises:
        LostWorkerError: a worker ended while it handed over what it had made.
    """
    try:
        return next(sent, None)
    except (ConnectionError, EOFError, FileNotFoundError) as error:
        # what a worker itself raised comes with this note
        if str(error).startswith("Caught "):
            raise
        raise _lost(error) from error


def packed(value: Any) -> tuple[Any, Tensor]:
    """A value with places where its tensors were, and a piece of shared memory that holds them; the same one, once.

    A piece needs one open file, however many tensors lie in it.
    """
    places: dict[int, tuple[Tensor, _Place]] = {}
    end = 0

    def place(tensor: Tensor) -> _Place:
        nonlocal end
        if id(tensor) not in places:
            places[id(tensor)] = (tensor, _Place(end, tuple(tensor.shape), tensor.dtype))
            end += -(-tensor.nbytes // _ALIGNED) * _ALIGNED
        return places[id(tensor)][1]

    value = _exchanged(value, Tensor, place)
    piece = torch.empty(end, dtype=torch.uint8)
    if end:
        piece.share_memory_()  # type: ignore[no-untyped-call]
    for tensor, where in places.values():
        _at(piece, where).copy_(tensor)
    return value, piece


def unpacked(value: Any, piece: Tensor) -> Any:
    """What was packed; its tensors are views of the piece."""
    return _exchanged(value, _Place, lambda place: _at(piece, place))


def _at(piece: Tensor, place: _Place) -> Tensor:
    size = place.dtype.itemsize
    for side in place.shape:
        size *= side
    return piece[place.start : place.start + size].view(place.dtype).view(place.shape)


def _exchanged(value: Any, kind: type[V], change: Callable[[V], Any]) -> Any:
    """A value with what its dataclasses, lists, tuples and dicts hold of a kind exchanged; what holds none is kept."""
    if isinstance(value, kind):
        return change(value)
    if is_dataclass(value) and not isinstance(value, type):
        old = {field.name: getattr(value, field.name) for field in fields(value)}
        changed = {name: new for name, held in old.items() if (new := _exchanged(held, kind, change)) is not held}
        if changed:
            # not by replace(): a value with places in it would not pass its own checks
            value = copy.copy(value)
            for name, new in changed.items():
                object.__setattr__(value, name, new)
        return value
    if type(value) in (list, tuple):
        items = [_exchanged(held, kind, change) for held in value]
        return value if all(new is held for new, held in zip(items, value, strict=True)) else type(value)(items)
    if type(value) is dict:
        return dict(zip(value, _exchanged(list(value.values()), kind, change), strict=True))
    return value


@contextmanager
def _ended(values: Any) -> Iterator[Any]:
    """End the workers of a loader's iterator with the block, or when Python exits inside it.

    At its exit Python sends SIGTERM to its children and waits for them, for ever if they ignore it: they must be told
    before.
    """
    end = partial(_end, values)
    atexit.register(end)
    try:
        yield values
    finally:
        atexit.unregister(end)
        end()


def _end(values: Any) -> None:
    values._shutdown_workers()
    for worker in values._workers:
        # still at a value, and deaf to the SIGTERM that torch sent it
        if worker.is_alive():
            worker.kill()
            worker.join()


def _outlive_signals(worker: int) -> None:
    """Leave it to the main process what a signal to all of them means.

    It may finish its step and write a checkpoint, for which it needs the workers. They end when it does.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _as_it_is(value: Any) -> Any:
    return value
