"""Work done ahead in other processes and handed over in order: the same values for any number of them.

Training prepares its batches so, and encoding its rows. The tensors of a value travel in one piece of shared memory,
never through a pipe; an InputError leaves a worker as it was; what a worker counts is counted where it was asked. Where
values are drained, a thread takes them while this process is at something else.
"""

import atexit
import copy
import re
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
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
DRAIN = "mmembed-drain"
"""Name of the thread that takes values from workers."""
_ALIGNED = 64
"""Bytes that each tensor of a piece begins at a multiple of."""
_LOST = re.compile(r"DataLoader worker \(pid.*|Pin memory thread exited.*", re.DOTALL)
_NOTHING_CAME = "DataLoader timed out"
_LOOK_UP = 0.1
"""Seconds after which a thread to which nothing came looks whether anything is still wanted."""
_LEAVE = 5.0
"""Seconds after which a thread is left alone that reads what a killed worker had begun to write."""


class LostWorkerError(InputError):
    """A worker process was killed, most often for memory."""


@dataclass(frozen=True)
class Drain:
    """How far a thread takes values out of the workers' shared memory while nobody asks for them.

    For values that are kept for long: what is shared is bounded by :data:`AHEAD` all the same.

    Args:
        size: of a value; picklable.
        most: the thread pauses while those that wait are so large together. It takes one where none waits.
    """

    size: Callable[[Any], int]
    most: int


@contextmanager
def in_order(
    make: Callable[[int], T], keys: Sequence[int], workers: int, *, pin: bool = False, drain: Drain | None = None
) -> Iterator[Iterator[T]]:
    """A block with the values of ``make`` for ``keys``, in order; its workers end with it.

    The global random state is left alone.

    Args:
        make: makes a value; picklable, and the value too.
        keys: what to make.
        workers: processes that make them; 0 makes each in this process when it is asked for.
        pin: put tensors that come from workers into pinned memory, for a copy to a GPU that nobody waits for.
        drain: have a thread take them; it, too, ends with the block, but for one that a killed worker left waiting.

    Raises:
        InputError: what ``make`` raised, as it was.
        LostWorkerError: a worker was killed.
    """
    if workers == 0:
        yield (make(key) for key in keys)
        return
    loader: DataLoader[Any] = DataLoader(
        _Sending(make, drain.size if drain else _no_size),
        batch_size=None,
        sampler=keys,
        num_workers=workers,
        prefetch_factor=AHEAD,
        pin_memory=pin,
        collate_fn=_as_it_is,
        worker_init_fn=_outlive_signals,
        generator=torch.Generator().manual_seed(0),
        timeout=_LOOK_UP if drain else 0,
    )
    with lost_workers_told(), _ended(iter(loader)) as sent:
        if drain is None:
            yield _received(partial(_next, sent), len(keys))
        else:
            with closing(_Drained(sent, len(keys), drain.most)) as drained:
                yield _received(drained.take, len(keys))


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
    size: int = 0
    problem: InputError | None = None

    def pin_memory(self) -> "_Sent":
        """The same in pinned memory; a DataLoader calls it."""
        return replace(self, piece=self.piece.pin_memory())


class _Sending(Dataset[_Sent]):
    """Makes values ready to be sent."""

    def __init__(self, make: Callable[[int], Any], size: Callable[[Any], int]) -> None:
        self.make, self.size = make, size

    def __getitem__(self, key: int) -> _Sent:
        with counters.counting() as counted:
            try:
                value, problem = self.make(key), None
            except InputError as error:
                value, problem = None, error
        size = 0 if problem else self.size(value)
        value, piece = packed(value)
        return _Sent(value, piece, dict(counted), size, problem)


def _no_size(value: object) -> int:
    return 0


def _received(take: Callable[[], _Sent], number: int) -> Iterator[Any]:
    """The values of what comes, or the error of the first that has one; their work is counted here."""
    for _ in range(number):
        with span("wait"):
            one = take()
        for name, amount in one.counted.items():
            counters.count(name, amount)
        if one.problem is not None:
            raise one.problem
        yield unpacked(one.value, one.piece)


def _next(sent: Iterator[_Sent]) -> _Sent:
    """What comes next.

    Raises:
        LostWorkerError: a worker ended while it handed over what it had made.
    """
    try:
        return next(sent)
    except (ConnectionError, EOFError, FileNotFoundError) as error:
        # what a worker itself raised comes with this note
        if str(error).startswith("Caught "):
            raise
        raise _lost(error) from error


class _Drained:
    """Takes what comes, or the error in its place, in a thread of this process; see :class:`Drain`.

    The thread neither counts nor measures, and raises nothing: that is for whoever takes.
    """

    def __init__(self, sent: Iterator[_Sent], number: int, most: int) -> None:
        self._sent, self._number, self._most = sent, number, most
        self._came: deque[_Sent | BaseException] = deque()
        self._size = 0
        self._wanted = True
        self._changed = threading.Condition()
        # a daemon: Python does not wait for it where it exits inside the block
        self._thread = threading.Thread(target=self._run, name=DRAIN, daemon=True)
        self._thread.start()

    def take(self) -> _Sent:
        """The next that came, once it has."""
        with self._changed:
            self._changed.wait_for(lambda: self._came)
            one = self._came.popleft()
            if isinstance(one, BaseException):
                raise one
            self._size -= one.size
            self._changed.notify()
            return one

    def close(self) -> None:
        """End the thread; one that waits for the rest of a message is left alone, a daemon."""
        # first of all: torch may raise the end of a worker in any line
        self._wanted = False
        with self._changed:
            self._changed.notify()
        # a worker that was killed while it wrote leaves a message without an end, at which the thread waits for ever
        self._thread.join(_LEAVE)

    def _run(self) -> None:
        for _ in range(self._number):
            one: _Sent | BaseException | None
            try:
                one = self._next()
            except BaseException as error:
                # whatever it is: raised where the value is taken, or that would wait for ever
                one = error
            if one is None:
                return
            with self._changed:
                self._came.append(one)
                self._changed.notify()
                if isinstance(one, BaseException):
                    return
                self._size += one.size
                self._changed.wait_for(self._goes_on)

    def _goes_on(self) -> bool:
        return not self._wanted or not self._came or self._size < self._most

    def _next(self) -> _Sent | None:
        """What comes next, out of shared memory; None where nothing is wanted any more."""
        while self._wanted:
            try:
                one = _next(self._sent)
            except RuntimeError as error:
                if not str(error).startswith(_NOTHING_CAME):
                    raise
            else:
                return replace(one, piece=one.piece.clone())
        return None


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
