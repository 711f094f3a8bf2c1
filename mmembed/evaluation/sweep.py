"""Sweeps: what the picture and the words of composed queries score together, over the share of the words.

Nothing is embedded for a share: the two halves are, once. A share chosen on the data it is scored on is optimistic.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.table import Table
from torch import Tensor

from mmembed.errors import InputError
from mmembed.evaluation.baselines import Parts, score_queries
from mmembed.evaluation.benchmark import Task
from mmembed.evaluation.retrieval_set import RetrievalSet
from mmembed.evaluation.scores import percent
from mmembed.models.composers import Composer, SlerpComposer, SumComposer

RULES = {"slerp": "great circle", "sum": "weighted sum of unit vectors"}
"""Ways to compose, as files call them and as tables do."""


@dataclass(frozen=True)
class Point:
    """A score at a share.

    Args:
        alpha: share of the words: 0 is the picture alone, 1 the words alone.
        score: by the row's metric, a fraction.
    """

    alpha: float
    score: float


@dataclass(frozen=True)
class Sweep:
    """What one task scores over the shares.

    Args:
        task: its name.
        metric: of the scores.
        protocol_id: under which they are comparable.
        curves: points by the way to compose, see :data:`RULES`.
    """

    task: str
    metric: str
    protocol_id: str
    curves: Mapping[str, Sequence[Point]]

    def best(self, rule: str) -> Point:
        """The highest point of a curve; of several, the one nearest to an even share."""
        return max(self.curves[rule], key=lambda point: (point.score, -abs(point.alpha - 0.5)))

    def row(self) -> dict[str, Any]:
        """What a file says of it."""
        return {
            "metric": self.metric,
            "protocol_id": self.protocol_id,
            "best": {rule: vars(self.best(rule)) for rule in self.curves},
            "curves": {rule: [vars(point) for point in points] for rule, points in self.curves.items()},
        }


def shares(words: str) -> list[float]:
    """Shares as one writes them: ``0:1:0.1`` for the first, the last that may be, and the step, or ``0.2,0.5``.

    Raises:
        InputError: no numbers from 0 to 1, or a step of nothing.
    """
    try:
        if ":" in words:
            first, last, step = (float(part) for part in words.split(":"))
            if step <= 0:
                raise ValueError
            found = [round(first + i * step, 6) for i in range(math.floor((last - first) / step + 1e-6) + 1)]
        else:
            found = [float(part) for part in words.split(",")]
    except (ValueError, OverflowError):
        found = []
    if not found or not all(0 <= share <= 1 for share in found):
        raise InputError(
            "--alpha", expected="shares from 0 to 1", got=f"'{words}'", remedy="write 0:1:0.1, or 0.2,0.5,0.8"
        )
    return found


def composed(rule: str, alpha: float, parts: Parts) -> Tensor:
    """``[Q, D]``: picture and words composed as :class:`mmembed.models.settings.Slerp` and ``Sum`` do."""
    composer: Composer = SlerpComposer(alpha) if rule == "slerp" else SumComposer(1 - alpha, before=True)
    return composer.compose(parts.image, parts.text)


def sweep_task(
    task: Task, retrieval_set: RetrievalSet, parts: Parts, targets: Tensor, alphas: Sequence[float], protocol_id: str
) -> Sweep:
    """Score a task at every share.

    Args:
        task: the row.
        retrieval_set: its data.
        parts: the halves of its queries.
        targets: ``[N, D]`` of its corpus.
        alphas: the shares of the words.
        protocol_id: of the row.
    """
    curves = {
        rule: [
            Point(alpha, score_queries(task, retrieval_set, composed(rule, alpha, parts), targets)["score"])
            for alpha in alphas
        ]
        for rule in RULES
    }
    return Sweep(task.name, task.metric, protocol_id, curves)


def sweep_table(sweep: Sweep) -> Table:
    """The scores as a table, all times 100; the best of each column is marked."""
    table = Table(
        title=f"{sweep.task}: {sweep.metric}, protocol {sweep.protocol_id}", title_justify="left", box=box.SIMPLE_HEAD,
        caption="alpha: share of the words; 0 is the picture alone, 1 the words alone", caption_justify="left",
        pad_edge=False,
    )  # fmt: skip
    table.add_column("alpha", justify="right")
    for words in RULES.values():
        table.add_column(words, justify="right")
    for place, point in enumerate(next(iter(sweep.curves.values()))):
        cells = [(points[place], points[place] is sweep.best(rule)) for rule, points in sweep.curves.items()]
        scores = (f"{percent(found.score)}{' *' if best else '  '}" for found, best in cells)
        table.add_row(f"{point.alpha:g}", *scores)
    return table
