"""Watches a stage from outside: plots its steps, says them in its log, and keeps its pace."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import Logger

from mmembed.training.machine import device_name, gpu_utilisation, memory
from mmembed.training.pace import Clock, Pace, Stretch
from mmembed.training.reports import StepReport
from mmembed.training.train_log import TrainLog


class Watch(Callback):  # type: ignore[misc]
    """Logs the module's ``report`` every so many steps, the first and the last, with the pace of the steps between.

    The loggers are this callback's, not the Trainer's: Lightning counts steps its own way, which differs after a
    resume. Here a point stands at the stage's optimiser step. Rank 0 writes, the other ranks do nothing. The rows that
    each source gave are counted over the whole stage, resumes included.

    Args:
        log_every: steps between two points.
        loggers: where they go.
        log: where a person reads them.
        wall: the time that passes.
        cpu: the CPU time of this process.
    """

    def __init__(
        self, log_every: int, loggers: Sequence[Logger], log: TrainLog, *,
        wall: Clock = time.perf_counter, cpu: Clock = time.process_time,
    ) -> None:  # fmt: skip
        self.log_every = log_every
        self.loggers = loggers
        # Lightning puts a function of its own at ``log`` of every callback
        self.train_log = log
        self.composition: Counter[str] = Counter()
        self._pace = Pace(wall, cpu)
        self._step = self._logged = 0
        self._report: StepReport | None = None

    def state_dict(self) -> dict[str, Any]:
        """Steps and rows so far, in plain JSON types."""
        return {"step": self._step, "composition": dict(self.composition)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from what :meth:`state_dict` gave."""
        self._step = state_dict["step"]
        self.composition = Counter(state_dict["composition"])

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The clock starts."""
        if trainer.is_global_zero:
            self.train_log.line(f"  rank 0 is on {device_name(pl_module.device)}")
        self._pace.enter("waiting")
        self._pace.take()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """The batch is here."""
        self._pace.enter("working")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Where the batch ends a step, count it, and log it if it is one of those."""
        report: StepReport | None = pl_module.report
        # with several batches to a step, the last step's report still stands
        if trainer.is_global_zero and report is not None and report.step != self._step:
            self._pace.add(report)
            self.composition.update(report.sources)
            first_here, self._report, self._step = self._report is None, report, report.step
            if first_here or report.step % self.log_every == 0:
                self._log_step(report, trainer, pl_module)
        self._pace.enter("waiting")

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Until the next batch is here, this is no step's time."""
        self._pace.enter("aside")

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Until the next batch is here, this is no step's time."""
        self._pace.enter("aside")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log what the held-out slice gave, beside the step it followed."""
        if trainer.is_global_zero and not trainer.sanity_checking:
            found = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val/")}
            self.train_log.validation(self._step, found)
            self._send(found)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the last step, and close the loggers."""
        self._close(trainer, pl_module, "success")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Log the last step there was and why there are no more."""
        self._close(trainer, pl_module, "failed")
        if trainer.is_global_zero:
            self.train_log.line(f"ended after step {self._step} by {type(exception).__name__}: {exception}")

    def _close(self, trainer: Trainer, pl_module: LightningModule, status: str) -> None:
        if not trainer.is_global_zero:
            return
        if self._report is not None and self._logged != self._report.step:
            self._log_step(self._report, trainer, pl_module)
        for logger in self.loggers:
            logger.finalize(status)

    def _log_step(self, report: StepReport, trainer: Trainer, pl_module: LightningModule) -> None:
        stretch = self._pace.take()
        rates = stretch.rates()
        self._logged = report.step
        self.train_log.step(report, rates, trainer.max_steps)
        values = {f"train/{name}": value for name, value in report.values.items()}
        drawn = self.composition.total()
        shares = {f"share/{name}": rows / drawn for name, rows in sorted(self.composition.items())}
        self._send(values | rates | _load(stretch, pl_module.device) | shares)

    def _send(self, values: Mapping[str, float]) -> None:
        for logger in self.loggers:
            try:
                logger.log_metrics(dict(values), step=self._step)
            except OSError as error:
                # a full disk is no reason to stop training
                self.train_log.line(f"step {self._step} not logged by {type(logger).__name__}: {error}")


def _load(stretch: Stretch, device: torch.device) -> dict[str, float]:
    """Memory, and how busy the device was."""
    busy = stretch.cpu_utilisation(torch.get_num_threads()) if device.type == "cpu" else gpu_utilisation(device)
    return memory(device) | ({} if busy is None else {"machine/utilisation": busy})
