"""Stop a run whose loss has become clearly worse than it was at the start."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from mmembed.errors import DivergenceError, InputError
from mmembed.training.reports import StepReport

MARGIN = 1.0
"""Nats above the ratio that are not yet worse: a loss that starts near zero may rise by many times nothing."""


class Divergence:
    """Compares the mean loss of the last steps with that of the stage's first steps.

    Args:
        ratio: how many times the first mean, and 1 nat more, the last mean may be; None never stops.
        window: steps in each mean.

    Raises:
        InputError: a ratio below 1, which would stop a run that learns.
    """

    def __init__(self, ratio: float | None, window: int = 20) -> None:
        if ratio is not None and not ratio >= 1:
            raise InputError("diverged", expected="at least 1", got=ratio, remedy="set it to null to never stop")
        self.ratio = ratio
        self.window = window
        self._step = 0
        self._first: list[float] = []
        self._last: list[float] = []

    def see(self, report: StepReport) -> None:
        """Take a step's loss into account, once: a report stands until the next step, which may be several batches.

        Raises:
            DivergenceError: the loss is clearly worse than at the start; the hardest rows of the step are named.
        """
        if report.step == self._step:
            return
        self._step, loss = report.step, report.values["loss"]
        if len(self._first) < self.window:
            self._first.append(loss)
        self._last = [*self._last, loss][-self.window :]
        if self.ratio is None or len(self._last) < self.window:
            return
        first, last = fmean(self._first), fmean(self._last)
        limit = self.ratio * first + MARGIN
        if last > limit:
            raise DivergenceError(
                f"step {report.step}: expected a mean loss over {self.window} steps of at most {limit:.4g} "
                f"({self.ratio:g} times {first:.4g}, that of the first {self.window} steps, and {MARGIN:g} more), got "
                f"{last:.4g}; hardest rows of this step: {_named(report.hardest)}; lower the learning rate, look at "
                "these rows, or set diverged to null to go on"
            )

    def state(self) -> dict[str, Any]:
        """What a resumed run needs, in plain JSON types."""
        return {"step": self._step, "first": list(self._first), "last": list(self._last)}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state` gave."""
        self._step, self._first, self._last = state["step"], list(state["first"]), list(state["last"])


def _named(rows: Sequence[tuple[str, float]]) -> str:
    return ", ".join(f"{name} ({loss:.4g})" for name, loss in rows) or "none"
