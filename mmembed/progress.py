"""Progress with the time left, on standard error: a bar on a terminal, a plain line now and then elsewhere."""

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

T = TypeVar("T")

SECONDS_BETWEEN_LINES = 30.0
PAGE_WIDTH = 100
"""Columns of a table that is not on a terminal."""


def track(things: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
    """Yield ``things`` and show how far they are; ``total`` where they cannot tell their number."""
    if total is None and isinstance(things, Sized):
        total = len(things)
    return _bar(things, label, total) if sys.stderr.isatty() else _lines(things, label, total)


def _bar(things: Iterable[T], label: str, total: int | None) -> Iterator[T]:
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
    with Progress(*columns, console=Console(stderr=True)) as progress:
        yield from progress.track(things, total=total, description=label)


def _lines(things: Iterable[T], label: str, total: int | None) -> Iterator[T]:
    started = said = time.monotonic()
    done = 0
    for thing in things:
        yield thing
        done += 1
        now = time.monotonic()
        if now - said >= SECONDS_BETWEEN_LINES:
            said = now
            left = "" if total is None else f", {clock((now - started) / done * (total - done))} left"
            print(f"{label}: {done}/{total or '?'}{left}", file=sys.stderr)  # noqa: T201
    seconds = time.monotonic() - started
    if seconds > 2:
        print(f"{label}: {done} in {clock(seconds)}", file=sys.stderr)  # noqa: T201


def clock(seconds: float) -> str:
    """Seconds as ``h:mm:ss``."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
