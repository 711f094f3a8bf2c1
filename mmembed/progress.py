"""Progress with the time left, on standard error: a bar on a terminal, a plain line now and then elsewhere."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import TypeAlias, TypeVar

T = TypeVar("T")
Advance: TypeAlias = Callable[[int], None]
"""Takes how many things were done since it was last called."""

SECONDS_BETWEEN_LINES = 30.0
PAGE_WIDTH = 100
"""Columns of a table that is not on a terminal."""


def track(things: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
    """Yield ``things`` and show how far they are; ``total`` where they cannot tell their number."""
    if total is None and isinstance(things, Sized):
        total = len(things)
    with progress(label, total) as advance:
        for thing in things:
            yield thing
            advance(1)


def progress(label: str, total: int | None = None) -> AbstractContextManager[Advance]:
    """Show how far a block is that calls what it is given with the number of things done since the last call."""
    return _bar(label, total) if sys.stderr.isatty() else _lines(label, total)


@contextmanager
def _bar(label: str, total: int | None) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as shown:
        task = shown.add_task(label, total=total)
        yield partial(shown.advance, task)


@contextmanager
def _lines(label: str, total: int | None) -> Iterator[Advance]:
    started = said = time.monotonic()
    done = 0

    def advance(number: int) -> None:
        nonlocal done, said
        done += number
        now = time.monotonic()
        if now - said >= SECONDS_BETWEEN_LINES:
            said = now
            left = "" if total is None else f", {clock((now - started) / max(done, 1) * (total - done))} left"
            print(f"{label}: {done}/{total or '?'}{left}", file=sys.stderr)  # noqa: T201

    yield advance
    seconds = time.monotonic() - started
    if seconds > 2:
        print(f"{label}: {done} in {clock(seconds)}", file=sys.stderr)  # noqa: T201


def clock(seconds: float) -> str:
    """Seconds as ``h:mm:ss``."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
