"""``scores.json`` read back, the mean that only a whole benchmark has, and what makes one less than whole."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mmembed.errors import InputError
from mmembed.evaluation.benchmark import OTHER_FORMS, Benchmark

MINIATURE = "miniature: drawn data, which say nothing of a model; no score of the benchmark"

BASELINES = {"image": "image only", "text": "text only", "sum": "sum"}
"""Baselines of composed queries as ``scores.json`` calls them, and as tables do."""

Kind = Literal["", "quick", "miniature"]
"""What was scored instead of the benchmark, if something else was."""


@dataclass(frozen=True)
class Mean:
    """The mean over the tasks of a benchmark, or how much of it is missing.

    Args:
        mean: mean of the tasks' scores, a fraction; None while one of them is missing, and of a quick evaluation.
        counted: tasks that have a score on all their data.
        total: tasks of the benchmark.
        kind: what was scored instead of the benchmark.
    """

    mean: float | None
    counted: int
    total: int
    kind: Kind = ""

    def __str__(self) -> str:
        if self.mean is None:
            return "quick, no mean" if self.kind == "quick" else f"partial ({self.counted} of {self.total})"
        what = f"task{'' if self.total == 1 else 's'}{' of a miniature' if self.kind == 'miniature' else ''}"
        return f"mean of {self.total} {what} {percent(self.mean)}"


def mean_of(scores: Mapping[str, float], benchmark: Benchmark, kind: Kind = "") -> Mean:
    """The mean of a score for each task, given only where every task of the benchmark has one.

    Args:
        scores: fractions by the name of the task.
        benchmark: what would be whole.
        kind: what was scored instead of the benchmark.
    """
    there = [scores[name] for name in benchmark.tasks if name in scores]
    whole = len(there) == len(benchmark.tasks)
    return Mean(sum(there) / len(there) if whole else None, len(there), len(benchmark.tasks), kind)


def our_mean(scores: Mapping[str, Any], benchmark: Benchmark) -> Mean:
    """:func:`mean_of` of the content of ``scores.json``."""
    return mean_of(counted(scores), benchmark, kind_of(scores))


def counted(scores: Mapping[str, Any]) -> dict[str, float]:
    """The scores that means are taken over: of tasks scored on all their data, none of a quick evaluation."""
    if scores["protocol"]["quick"] is not None:
        return {}
    return {name: row["score"] for name, row in scores["tasks"].items() if row["part"] is None}


def kind_of(scores: Mapping[str, Any]) -> Kind:
    """What the content of ``scores.json`` scores instead of the benchmark."""
    if scores["protocol"]["quick"] is not None:
        return "quick"
    return "miniature" if scores["protocol"]["miniature"] else ""


def what_is_less(scores: Mapping[str, Any]) -> list[str]:
    """What makes an evaluation less than the benchmark's, in words: a sample, a miniature, parts of the data."""
    found = [] if (quick := quick_words(scores)) is None else [quick]
    if scores["protocol"]["miniature"]:
        found.append(MINIATURE)
    reasons: dict[str, list[str]] = {}
    for name, row in scores["tasks"].items():
        if row["part"] is not None:
            reasons.setdefault(row["part"], []).append(name)
    if reasons:
        number = sum(map(len, reasons.values()))
        tasks = "1 task on a part of its" if number == 1 else f"{number} tasks on parts of their"
        named = "; ".join(f"{', '.join(names)}: {reason}" for reason, names in reasons.items())
        found.append(f"{tasks} data, which no mean counts: {named}")
    return found


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
    known = known and scores["protocol"].keys() >= {"quick", "miniature", "chosen"}
    if not known or not all(row.keys() >= {"protocol_id", "part"} for row in scores["tasks"].values()):
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


def highest_blind(blinds: Mapping[str, float]) -> float | None:
    """The highest of the scores under each blinding that takes something; None where there is none."""
    return max((score for name, score in blinds.items() if name.split(".")[-1] not in OTHER_FORMS), default=None)


def percent(fraction: float | None) -> str:
    """A fraction times 100, as tables print it."""
    return "–" if fraction is None else f"{100 * fraction:.1f}"  # noqa: RUF001
