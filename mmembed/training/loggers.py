"""Where a stage's numbers go: TensorBoard, a CSV file, Weights & Biases. A resumed run continues each of them.

A run may have gone on for some steps after the checkpoint that it is resumed from. Each step stands once all the same:
the points of the earlier life from the first new step on are taken out (CSV) or hidden (TensorBoard).
"""

import csv
import os
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from tensorboard.compat.proto.event_pb2 import Event, SessionLog  # type: ignore[import-untyped]

from mmembed.errors import InputError
from mmembed.files import whole_file, write_text

LoggerName = Literal["tensorboard", "csv", "wandb"]


def make_loggers(names: Sequence[LoggerName], directory: Path, name: str) -> list[Logger]:
    """The named loggers; to be called on rank 0 alone.

    Args:
        names: which ones.
        directory: of the stage; ``logs/``, ``metrics.csv`` and ``wandb/`` are in it.
        name: of the stage, as Weights & Biases shows it.

    Raises:
        InputError: Weights & Biases is not installed.
    """
    makers = {"tensorboard": _tensorboard, "csv": _csv, "wandb": _wandb}
    return [makers[kind](directory, name) for kind in names]


class CsvLog(Logger):  # type: ignore[misc]
    """One row a step in one file, with a column for every metric that was ever logged.

    A row is appended. Where that does not do (a new column, more values for a step, the first row of a resumed run) the
    file is written anew beside the old one, so that it is whole at any moment.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self._columns: list[str] = []
        self._last: int | None = None

    @property
    def name(self) -> str:
        """Of the file."""
        return self.path.name

    @property
    def version(self) -> str:
        """There is one."""
        return ""

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Left out: the run's folder holds its recipe."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Add values to the row of a step; the first call says from which step on an earlier life is done again.

        Raises:
            OSError: the file cannot be written.
        """
        row = {"step": str(step or 0), **{name: repr(float(value)) for name, value in metrics.items()}}
        if self._last is None or int(row["step"]) <= self._last or not row.keys() <= set(self._columns):
            self._rewrite(row)
        else:
            self._append(row)
        self._last = max(int(row["step"]), self._last or 0)

    def _append(self, row: Mapping[str, str]) -> None:
        try:
            with self.path.open("a", encoding="utf-8", newline="") as file:
                csv.DictWriter(file, self._columns).writerow(row)
        except OSError:
            # half a row may stand there; the next one reads the file again and drops it
            self._columns = []
            raise

    def _rewrite(self, row: Mapping[str, str]) -> None:
        step, rows, resumed = int(row["step"]), self._read(), self._last is None
        kept = {int(old["step"]): old for old in rows if not resumed or int(old["step"]) < step}
        kept[step] = {name: value for name, value in kept.get(step, {}).items() if value} | dict(row)
        columns = list(dict.fromkeys(["step", *(name for old in [*rows[:1], *kept.values()] for name in old)]))
        with whole_file(self.path) as part, part.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(kept[number] for number in sorted(kept))
        self._columns = columns

    def _read(self) -> list[dict[str, str]]:
        """The rows of the file, without a last one that a kill cut short."""
        if not self.path.exists():
            return []
        lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
        return list(csv.DictReader(line for line in lines if line.endswith("\n")))


class TensorBoardLog(TensorBoardLogger):  # type: ignore[misc]
    """Lightning's, which tells TensorBoard to hide what an earlier life logged from the first new step on."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Add the points of a step."""
        if self._experiment is None:
            start = Event(session_log=SessionLog(status=SessionLog.START))
            self.experiment.file_writer.add_event(start, step)
        super().log_metrics(metrics, step)


class WandbLog(WandbLogger):  # type: ignore[misc]
    """Lightning's, which ends its run with the stage; else the next stage would log into it."""

    def finalize(self, status: str) -> None:
        """Send what is left, and end."""
        if self._experiment is not None:
            self._experiment.finish(exit_code=int(status != "success"))


def _tensorboard(directory: Path, name: str) -> Logger:
    return TensorBoardLog(directory, name="", version="logs")


def _csv(directory: Path, name: str) -> Logger:
    return CsvLog(directory / "metrics.csv")


def _wandb(directory: Path, name: str) -> Logger:
    try:
        import_module("wandb")
    except ImportError as error:
        raise InputError(
            "loggers", expected="the package wandb", got=str(error), remedy="pip install mmembed[wandb]"
        ) from error
    held = directory / "wandb_run.txt"
    if not held.exists():
        write_text(held, uuid4().hex)
    project = os.environ.get("WANDB_PROJECT", "mmembed")
    return WandbLog(name=name, save_dir=directory, id=held.read_text(encoding="utf-8"), project=project)
