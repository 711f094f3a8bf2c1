"""The pace of a run: what a stretch of steps gets done, and where its time goes."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from mmembed.training.reports import StepReport

Clock = Callable[[], float]
"""Seconds from any zero."""
Activity = Literal["waiting", "working", "aside"]
"""Waiting for a batch, working on one, or aside: what is no step's time, such as validation."""


@dataclass(frozen=True)
class Stretch:
    """A number of steps in a row.

    Args:
        steps: how many.
        items: queries and targets, over all ranks.
        tokens: real tokens, over all ranks.
        padded: tokens computed, over all ranks.
        waiting: seconds for the next batch, until it is on the device.
        working: seconds of the steps themselves.
        aside: seconds of what is no step's time.
        cpu: seconds of CPU that this process used, over all its threads; worker processes have their own.
    """

    steps: int
    items: int
    tokens: int
    padded: int
    waiting: float
    working: float
    aside: float
    cpu: float

    def rates(self) -> dict[str, float]:
        """What is plotted of it; validation and checkpoints slow nothing here."""
        seconds = self.waiting + self.working
        return {
            "speed/items_per_second": self.items / seconds,
            "speed/tokens_per_second": self.tokens / seconds,
            "speed/seconds_per_step": seconds / self.steps,
            "speed/data_wait": self.waiting / seconds,
            "speed/padding": 1 - self.tokens / self.padded if self.padded else 0.0,
        }

    def cpu_utilisation(self, threads: int) -> float:
        """Share of the time of so many threads that was used."""
        return self.cpu / ((self.waiting + self.working + self.aside) * threads)


class Pace:
    """Adds up steps, and books all time under what the process is at.

    Args:
        wall: the time that passes.
        cpu: the CPU time of this process.
    """

    def __init__(self, wall: Clock, cpu: Clock) -> None:
        self._wall, self._cpu = wall, cpu
        self._activity: Activity = "waiting"
        self._since = 0.0
        self._begin()

    def enter(self, activity: Activity) -> None:
        """Book the time until now, and what follows under ``activity``."""
        now = self._wall()
        self._seconds[self._activity] += now - self._since
        self._activity, self._since = activity, now

    def add(self, report: StepReport) -> None:
        """A step is done."""
        self._work.update(steps=1, items=report.items, tokens=report.tokens, padded=report.padded)

    def take(self) -> Stretch:
        """What was done since the last call; the next stretch begins."""
        self.enter(self._activity)
        work, seconds = self._work, self._seconds
        stretch = Stretch(
            work["steps"], work["items"], work["tokens"], work["padded"],
            seconds["waiting"], seconds["working"], seconds["aside"], self._cpu() - self._cpu_before,
        )  # fmt: skip
        self._begin()
        return stretch

    def _begin(self) -> None:
        self._work: Counter[str] = Counter()
        self._seconds: dict[Activity, float] = {"waiting": 0.0, "working": 0.0, "aside": 0.0}
        self._since, self._cpu_before = self._wall(), self._cpu()
