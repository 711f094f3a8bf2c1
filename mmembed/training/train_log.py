"""``train.log``: the run as a person reads it, a line for everything worth knowing."""

import sys
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path

from torch import nn

from mmembed.data.quarantine import Quarantine
from mmembed.data.sampler import Sampler
from mmembed.models.embedder import Embedder
from mmembed.processes import Processes
from mmembed.progress import clock
from mmembed.training.machine import counted, versions
from mmembed.training.reports import StepReport
from mmembed.training.settings import Stage

SHOWN = {
    "loss": ("loss", "7.4f"),
    "grad_norm": ("norm", "7.3g"),
    "lr": ("lr", ".2e"),
    "temperature": ("temp", ".4f"),
}
"""Values in a step's line: what they are called there, and how. The loggers have all values."""
RATES = {
    "speed/items_per_second": ("items/s", "7,.0f"),
    "speed/seconds_per_step": ("s/step", "6.2f"),
    "speed/data_wait": ("wait", "4.0%"),
    "speed/padding": ("pad", "4.0%"),
}
"""Rates in a step's line, likewise."""


class TrainLog:
    """Appends stamped lines to a file; each is there as soon as it is said.

    A line that cannot be written (the disk is full) goes to standard error, and training goes on.

    Args:
        path: of the file, which a resumed run continues; None says nothing.
        now: the time of day.
    """

    def __init__(self, path: Path | None, now: Callable[[], datetime] = datetime.now) -> None:
        self.path = path
        self._now = now
        self._began = now()

    @classmethod
    def none(cls) -> "TrainLog":
        """The log of the ranks that do not write."""
        return cls(None)

    def line(self, *lines: str) -> None:
        """Append these lines."""
        if self.path is None:
            return
        stamp = f"{self._now():%Y-%m-%d %H:%M:%S}"
        text = "".join(f"{stamp} {line.rstrip()}\n" for given in lines for line in given.splitlines())
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            print(f"{text}{stamp} not written to {self.path.name}: {error}", file=sys.stderr)  # noqa: T201

    def begin(
        self, name: str, stage: Stage, embedder: Embedder, sampler: Sampler, processes: Processes, resumed: Path | None
    ) -> None:
        """A stage begins.

        Args:
            name: of the stage.
            stage: its settings.
            embedder: what it trains, frozen where it is.
            sampler: what it draws from.
            processes: that train it.
            resumed: the checkpoint it goes on from.
        """
        self._began = self._now()
        self.line(f"stage {name}: {stage.steps} steps", f"  {versions()}")
        ranks, nodes = counted(processes.world, "process", "processes"), counted(processes.nodes, "machine")
        self.line(f"  {ranks} on {nodes}", *_aligned([["part", "trains", "of"], *_parameter_rows(embedder)]))
        sources = [[source, f"{rows:,}", f"{sampler.shares[source]:.1%}"] for source, rows in sampler.sizes.items()]
        self.line(*_aligned([["source", "rows", "share"], *sources]))
        if resumed is not None:
            self.line(f"  goes on from {resumed.name}")

    def step(self, report: StepReport, rates: Mapping[str, float], steps: int) -> None:
        """A step is logged; ``steps`` are those of the stage."""
        values = [f"{label} {report.values[n]:{form}}" for n, (label, form) in SHOWN.items() if n in report.values]
        speeds = [f"{rates[n]:{form}} {label}" for n, (label, form) in RATES.items() if n in rates]
        self.line("  ".join([f"step {report.step:>{len(str(steps))}}/{steps}", *values, *speeds]))

    def validation(self, step: int, metrics: Mapping[str, float]) -> None:
        """The held-out slice was embedded; ``metrics`` as ``val/METRIC`` and ``val/METRIC/SOURCE``."""
        short = {name.removeprefix("val/"): f"{value:.4f}" for name, value in metrics.items()}
        whole = [f"{name} {value}" for name, value in short.items() if "/" not in name]
        self.line("  ".join([f"validation after step {step}", *whole]))
        self.line(*_aligned([[name, value] for name, value in short.items() if "/" in name]))

    def end(self, name: str, drawn: Mapping[str, int], planned: Mapping[str, int], quarantine: Quarantine) -> None:
        """A stage is done.

        Args:
            name: of the stage.
            drawn: rows that each source gave over the whole of it.
            planned: rows that the sampler planned for each; where they differ, the batches were not the plan's.
            quarantine: rows that could not be used.
        """
        self.line(f"stage {name} done, {clock((self._now() - self._began).total_seconds())} in this process")
        rows = [[source, f"{drawn.get(source, 0):,}", f"{count:,}"] for source, count in planned.items()]
        self.line(*_aligned([["source", "rows", "planned"], *rows]))
        self.line(*(f"  {line}" for line in quarantine.report() or ["no row had to be replaced"]))


def count_parameters(module: nn.Module, depth: int = 3) -> dict[str, tuple[int, int]]:
    """How many parameters train and how many there are, by the first ``depth`` words of their names."""
    counts: dict[str, tuple[int, int]] = {}
    for name, parameter in module.named_parameters():
        part = ".".join(name.split(".")[:depth])
        training, total = counts.get(part, (0, 0))
        counts[part] = training + parameter.numel() * parameter.requires_grad, total + parameter.numel()
    return counts


def _parameter_rows(module: nn.Module) -> list[list[str]]:
    counts = count_parameters(module)
    whole = (sum(training for training, _ in counts.values()), sum(total for _, total in counts.values()))
    return [[part, f"{training:,}", f"{total:,}"] for part, (training, total) in [*counts.items(), ("all", whole)]]


def _aligned(rows: list[list[str]]) -> list[str]:
    """Indented lines; the cells of the first column begin alike, those of the others end alike."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  " + "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
