"""``scores.json`` read back, and the mean that only a whole benchmark has."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmembed.errors import InputError
from mmembed.evaluation.benchmark import Benchmark


@dataclass(frozen=True)
class Overall:
    """The mean over a benchmark, or how much of it is missing.

    Args:
        mean: mean of the tasks' scores, a fraction; None while one of them is missing.
        evaluated: tasks that have a score.
        total: tasks of the benchmark.
    """

    mean: float | None
    evaluated: int
    total: int

    def __str__(self) -> str:
        if self.mean is None:
            return f"partial ({self.evaluated} of {self.total})"
        return f"mean of {self.total} task{'' if self.total == 1 else 's'} {percent(self.mean)}"


def overall(scores: Mapping[str, float], benchmark: Benchmark) -> Overall:
    """The mean of a score for each task, given only where every task of the benchmark has one.

    Args:
        scores: fractions by the name of the task.
        benchmark: what would be whole.
    """
    there = [scores[name] for name in benchmark.tasks if name in scores]
    whole = len(there) == len(benchmark.tasks)
    return Overall(sum(there) / len(there) if whole else None, len(there), len(benchmark.tasks))


def our_overall(scores: Mapping[str, Any], benchmark: Benchmark) -> Overall:
    """:func:`overall` of the content of ``scores.json``."""
    return overall({name: row["score"] for name, row in scores["tasks"].items()}, benchmark)


def read_scores(output: Path, benchmark: Benchmark | None = None) -> dict[str, Any]:
    """The ``scores.json`` of an evaluation.

    Args:
        output: folder of the evaluation.
        benchmark: what was evaluated; None is any.

    Raises:
        InputError: no such file, one that is not JSON or was written by another version, or scores of another
            benchmark or of tasks that it lacks.
    """
    path = output / "scores.json"
    try:
        scores: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(
            path, expected="scores of an evaluation", got="no such file", remedy="evaluate first"
        ) from None
    except ValueError as error:
        raise InputError(path, expected="JSON", got=str(error), remedy="evaluate again") from error
    known = scores.keys() >= {"protocol", "tasks", "failed", "partial"}
    if not known or any("protocol_id" not in row for row in scores["tasks"].values()):
        raise InputError(
            path, expected="scores with protocol ids", got="those of another version", remedy="evaluate again"
        )
    if benchmark is not None:
        name = scores["protocol"]["benchmark"]
        if name != benchmark.name:
            raise InputError(
                path, expected=f"scores of {benchmark.name}", got=f"scores of {name}", remedy="name its benchmark"
            )
        benchmark.only([*scores["tasks"], *scores["failed"]])
    return scores


def quick_words(scores: Mapping[str, Any]) -> str | None:
    """What a quick evaluation left out, in words; None of a whole one."""
    quick = scores["protocol"]["quick"]
    return None if quick is None else f"quick: {quick['queries']} queries a task, seed {quick['seed']}"


def percent(fraction: float | None) -> str:
    """A fraction times 100, as tables print it."""
    return "–" if fraction is None else f"{100 * fraction:.1f}"  # noqa: RUF001
