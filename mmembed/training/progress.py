"""Training progress with the time left: a bar on a terminal, a line now and then elsewhere."""

import time
from typing import Any

from lightning import Callback, LightningModule, Trainer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from mmembed.progress import SECONDS_BETWEEN_LINES, clock
from mmembed.training.pace import Clock
from mmembed.training.reports import StepReport


class TrainingProgress(Callback):  # type: ignore[misc]
    """Shows step, loss, items a second and the time left of a stage; rank 0 alone does.

    The pace is the mean of this process, validations and checkpoints included; what an earlier life took is unknown.

    Args:
        name: of the stage.
        steps: optimiser steps it has.
        console: where it is shown; standard error without one.
        wall: the time that passes.
    """

    def __init__(
        self, name: str, steps: int, *, console: Console | None = None, wall: Clock = time.perf_counter
    ) -> None:
        self.name = name
        self.steps = steps
        self._console = console or Console(stderr=True)
        self._wall = wall
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._started = self._said = 0.0
        self._step = self._first_step = self._items = 0
        self._first_temperature: float | None = None
        self._note = ""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the bar, at the step that a resumed run goes on from."""
        self._started = self._said = self._wall()
        self._step = self._first_step = trainer.global_step
        if trainer.is_global_zero and self._console.is_terminal:
            note, left = TextColumn("{task.fields[note]}"), TextColumn("{task.fields[left]}")
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), note, left)
            self._bar = Progress(*columns, console=self._console)
            self._task = self._bar.add_task(
                f"train {self.name}", total=self.steps, completed=self._first_step, note="", left=""
            )
            self._bar.start()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move the bar, or say a line if the last was long ago."""
        report: StepReport | None = pl_module.report
        # with several batches to a step, the last step's report still stands
        if not trainer.is_global_zero or report is None or report.step == self._step:
            return
        now, step = self._wall(), report.step
        self._step = step
        self._items += report.items
        self._note = self._pace(report, now - self._started)
        left = f"{clock((now - self._started) / (step - self._first_step) * (self.steps - step))} left"
        if self._bar is not None:
            self._bar.update(self._task, completed=step, note=self._note, left=left)
        elif now - self._said >= SECONDS_BETWEEN_LINES or step == self.steps:
            self._said = now
            self._say(f"train {self.name}: step {step}/{self.steps}  {self._note}  {left}")

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say why no step is made."""
        if self._bar is not None:
            self._bar.update(self._task, note="validating")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say what the held-out slice gave as a whole; its sources are in the log."""
        if trainer.is_global_zero and not trainer.sanity_checking:
            found = {name.split("/", 1)[-1]: value for name, value in trainer.callback_metrics.items() if _whole(name)}
            values = "  ".join(f"{name} {float(value):.3f}" for name, value in found.items())
            self._say(f"validated {self.name}: step {self._step}/{self.steps}  {values}")
        if self._bar is not None:
            self._bar.update(self._task, note=self._note)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the bar."""
        self._close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Close the bar, so that the error is readable."""
        self._close()

    def _pace(self, report: StepReport, seconds: float) -> str:
        parts = [f"loss {report.values['loss']:.3f}"]
        temperature = report.values.get("temperature")
        if temperature is not None:
            # one that is not learned never moves, and is no news
            self._first_temperature = self._first_temperature or temperature
            if temperature != self._first_temperature:
                parts.append(f"temperature {temperature:.4f}")
        return "  ".join([*parts, f"{self._items / seconds:,.0f} items/s"])

    def _say(self, line: str) -> None:
        # a line of a file has no width to wrap at, and a source may be called [so]
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def _whole(name: str) -> bool:
    """Whether a metric is of the whole slice, ``val/METRIC``, and not of one source."""
    return name.startswith("val/") and name.count("/") == 1
