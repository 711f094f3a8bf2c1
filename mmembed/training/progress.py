"""Training progress with the time left: a bar on a terminal, a line now and then elsewhere."""

import time
from typing import Any

from lightning import Callback, LightningModule, Trainer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from mmembed.progress import SECONDS_BETWEEN_LINES, clock


class TrainingProgress(Callback):  # type: ignore[misc]
    """Shows step, loss, seconds a step and the time left of a stage, on standard error."""

    def __init__(self, name: str, steps: int) -> None:
        self.name = name
        self.steps = steps
        self._console = Console(stderr=True)
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._started = self._said = 0.0
        self._first_step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the bar."""
        self._started = self._said = time.monotonic()
        self._first_step = trainer.global_step
        if self._console.is_terminal:
            note = TextColumn("{task.fields[note]}")
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), note, TimeRemainingColumn())
            self._bar = Progress(*columns, console=self._console)
            self._task = self._bar.add_task(f"train {self.name}", total=self.steps, note="")
            self._bar.start()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move the bar, or say a line if the last was long ago."""
        step, now = trainer.global_step, time.monotonic()
        pace = (now - self._started) / max(1, step - self._first_step)
        note = f"loss {float(trainer.callback_metrics.get('loss', float('nan'))):.3f}  {pace:.2f} s/step"
        if self._bar is not None:
            self._bar.update(self._task, completed=step, note=note)
        elif now - self._said >= SECONDS_BETWEEN_LINES or step == self.steps:
            self._said = now
            left = clock(pace * (self.steps - step))
            self._console.print(f"train {self.name}: step {step}/{self.steps}  {note}  {left} left", highlight=False)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the bar."""
        self._close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Close the bar, so that the error is readable."""
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
