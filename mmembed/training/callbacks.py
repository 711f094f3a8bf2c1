"""What happens around the steps of a stage: checkpoints, the order to stop, and the guards that end a bad run."""

import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer

from mmembed.data.quarantine import BadRow, Quarantine
from mmembed.errors import InputError, StoppedError
from mmembed.losses.gather import total
from mmembed.processes import everyone
from mmembed.training.batches import TrainingBatch
from mmembed.training.checkpoint import CheckpointFiles, checkpoint_path, prune
from mmembed.training.divergence import Divergence
from mmembed.training.settings import Stage
from mmembed.training.train_log import TrainLog

BEST = "best"


class PatientFiles(CheckpointFiles):
    """Remembers a failed write, where raising would leave the other ranks waiting for this one."""

    failed: str | None = None

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Path | str, storage_options: Any = None) -> None:
        """Write, or remember why not."""
        self.failed = None
        try:
            super().save_checkpoint(checkpoint, path, storage_options)
        except OSError as error:
            self.failed = str(error)


class StageCheckpoints(Callback):  # type: ignore[misc]
    """Writes the state of a stage at its marks, at its end, and when SIGTERM or Ctrl-C asks the run to stop.

    A mark that falls on a validation is written after it, so that a resumed run neither repeats nor skips one. A write
    that fails, for example on a full disk, is reported and tried again at the next mark; only the last one of a stage,
    or of a stopping run, ends in an error.
    """

    def __init__(self, directory: Path, stage: Stage, log: TrainLog) -> None:
        self.directory = directory
        self.stage = stage
        self.train_log = log
        self._best = float("-inf")
        self._asked = False
        self._before: dict[int, Any] = {}

    def state_dict(self) -> dict[str, Any]:
        """The best score so far."""
        return {"best": self._best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the best score."""
        self._best = state_dict["best"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen for the order to stop; only a main thread can."""
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._ask) for number in (signal.SIGTERM, signal.SIGINT)}

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Listen no more."""
        self._deafen()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Listen no more."""
        self._deafen()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: TrainingBatch, batch_idx: int
    ) -> None:
        """Write if this step is a mark and no validation follows it."""
        step = trainer.global_step
        if self.stage.ends_step(batch.number) and not self.stage.validates_after(step):
            self._write_if_due(trainer, step)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the weights if they are the best so far and wanted, then write the state if this step is a mark."""
        score = float(trainer.callback_metrics["val/hit@1"])
        better = self.stage.finish == BEST and score > self._best
        if better and self._write(trainer, self.directory / BEST, weights_only=True, must=self._is_last(trainer)):
            self._best = score
        self._write_if_due(trainer, trainer.global_step)

    def _write_if_due(self, trainer: Trainer, step: int) -> None:
        last = self._is_last(trainer)
        stop = bool(total(torch.tensor(float(self._asked))))
        if not (last or stop or step % self.stage.checkpoints.every == 0):
            return
        path = checkpoint_path(self.directory, step)
        self._write(trainer, path, must=last or stop)
        if trainer.is_global_zero:
            self._make_room()
        if stop:
            raise StoppedError(
                f"stopped at step {step} of {self.stage.steps}, state in {path}; the same command goes on from there"
            )

    def _make_room(self) -> None:
        try:
            prune(self.directory, self.stage.checkpoints.keep, self.stage.checkpoints.keep_every)
        except OSError as error:
            # there is more on the disk than there need be, which is no reason to stop
            self.train_log.line(f"could not remove older checkpoints: {error}")

    def _is_last(self, trainer: Trainer) -> bool:
        return bool(trainer.global_step == self.stage.steps)

    def _write(self, trainer: Trainer, path: Path, *, weights_only: bool = False, must: bool = False) -> bool:
        files: PatientFiles = trainer.strategy.checkpoint_io
        trainer.save_checkpoint(path, weights_only=weights_only)
        failed = next((said for said in everyone(files.failed) if said), None)
        if failed is None:
            self.train_log.line(f"wrote {path.name}")
            return True
        self.train_log.line(f"could not write {path.name}: {failed}")
        if must:
            raise InputError(
                path, expected="room for a checkpoint", got=failed,
                remedy="free some space and give the same command: it goes on from the checkpoint before",
            )  # fmt: skip
        return False

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self._asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._asked = True

    def _deafen(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}


class Guards(Callback):  # type: ignore[misc]
    """Counts the rows that had to be replaced and watches the loss; either may end the run, on all ranks at once."""

    def __init__(self, quarantine: Quarantine, divergence: Divergence, log: TrainLog) -> None:
        self.quarantine = quarantine
        self.divergence = divergence
        self.train_log = log

    def state_dict(self) -> dict[str, Any]:
        """What was seen so far."""
        return {"quarantine": self.quarantine.state(), "divergence": self.divergence.state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up what was seen."""
        self.quarantine.load(state_dict["quarantine"])
        self.divergence.load(state_dict["divergence"])

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: TrainingBatch, batch_idx: int
    ) -> None:
        """Look at the batch's bad rows, and at the loss of a finished step."""
        self._count(batch, "replaced")
        if pl_module.report is not None:
            self.divergence.see(pl_module.report)

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: TrainingBatch, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        """Look at the held-out slice's bad rows."""
        self._count(batch, "left out")

    def _count(self, batch: TrainingBatch, what: str) -> None:
        bad: list[BadRow] = [row for mine in everyone(batch.bad) for row in mine]
        for row in self.quarantine.add(bad):
            self.train_log.line(f"{what} {row.source} row {row.row}: {row.reason}")
