"""Where the time goes: named parts of the work, measured only inside a block that asks.

Names in use: ``decode``, ``preprocess``, ``vision``, ``language``, ``loss``, ``backward``, ``optimiser``, ``wait`` (for
data). A part inside another is not counted in the outer one. Worker processes measure for themselves.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

_open: list["_Clock"] = []


class _Clock:
    """The seconds of one :func:`timing` block, and the parts that are under way."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.names: list[str] = []
        self.since = 0.0

    def turn(self) -> None:
        """Give the time since the last turn to the innermost part."""
        now = time.perf_counter()
        if self.names:
            name = self.names[-1]
            self.seconds[name] = self.seconds.get(name, 0.0) + now - self.since
        self.since = now


@contextmanager
def span(name: str) -> Iterator[None]:
    """Give the time of the block to ``name`` in every open :func:`timing` block of this process."""
    clocks = list(_open)
    _turn(clocks)
    for clock in clocks:
        clock.names.append(name)
    try:
        yield
    finally:
        _turn(clocks)
        for clock in clocks:
            clock.names.pop()


@contextmanager
def timing() -> Iterator[dict[str, float]]:
    """Collect the seconds of each part of the work inside the block; blocks may nest."""
    clock = _Clock()
    _open.append(clock)
    try:
        yield clock.seconds
    finally:
        _open[:] = [other for other in _open if other is not clock]


def _turn(clocks: list[_Clock]) -> None:
    if not clocks:
        return
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        # a GPU works behind the program's back
        torch.cuda.synchronize()
    for clock in clocks:
        clock.turn()
