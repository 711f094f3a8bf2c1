"""What an optimiser step did, added up over its batches and over all processes."""

from collections import Counter
from collections.abc import Mapping

from mmembed.losses.objectives import Loss
from mmembed.processes import everyone
from mmembed.training.batches import TrainingBatch
from mmembed.training.reports import StepReport

HARDEST = 8


class StepTally:
    """Collects the batches of one optimiser step."""

    def __init__(self) -> None:
        self._losses: list[float] = []
        self._logs: list[Mapping[str, float]] = []
        self._work: Counter[str] = Counter()
        self._rows: Counter[str] = Counter()
        self._hardest: list[tuple[str, float]] = []

    @property
    def loss(self) -> float:
        """The mean loss of the batches so far."""
        return sum(self._losses) / max(1, len(self._losses))

    @property
    def hardest(self) -> list[str]:
        """This rank's rows of largest loss, the worst first."""
        return [name for name, _ in sorted(self._hardest, key=lambda row: -row[1])]

    def add(self, batch: TrainingBatch, loss: Loss) -> None:
        """Count a batch and its loss."""
        self._losses.append(float(loss.value))
        self._logs.append(loss.logs)
        for chunk in batch.chunks:
            self._work["tokens"] += int(chunk.lengths.sum())
            self._work["padded"] += len(chunk) * int(chunk.lengths.max())
        self._work["items"] += len(batch.query_rows) + len(batch.target_rows)
        self._rows += batch.composition
        values, rows = loss.per_query.topk(min(HARDEST, len(loss.per_query)))
        self._hardest += zip(map(batch.name, rows.tolist()), values.tolist(), strict=True)

    def report(self, step: int, values: Mapping[str, float]) -> StepReport:
        """The step as a whole; every process must ask for it.

        Args:
            step: optimiser steps done.
            values: what is logged beside the loss and the objective's own figures.
        """
        work: Counter[str] = Counter()
        rows: Counter[str] = Counter()
        hardest: list[tuple[str, float]] = []
        for their_work, their_rows, their_hardest in everyone((self._work, self._rows, self._hardest)):
            work += their_work
            rows += their_rows
            hardest += their_hardest
        means = {name: sum(log[name] for log in self._logs) / len(self._logs) for name in self._logs[0]}
        return StepReport(
            step=step,
            values={"loss": self.loss, **values, **means},
            items=work["items"],
            tokens=work["tokens"],
            padded=work["padded"],
            sources=dict(rows),
            hardest=tuple(sorted(hardest, key=lambda row: -row[1])[:HARDEST]),
        )
