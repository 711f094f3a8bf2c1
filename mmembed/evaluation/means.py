"""Means over the parts of a benchmark: modalities, their categories, all; ours beside those of an entry."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmembed.evaluation.benchmark import OVERALL, Benchmark
from mmembed.evaluation.expected import Comparison, Expected, compare, verdict_of
from mmembed.evaluation.scores import Kind, Mean, counted, kind_of, mean_of


@dataclass(frozen=True)
class PartMean:
    """A mean of ours, and the published one.

    Args:
        name: the part, e.g. ``image``, ``I-CLS`` or ``overall``.
        is_category: whether it is a part of the modality before it.
        ours: the mean, or how much of it is missing.
        published: the mean of an entry that has a score for every task of the part.
        comparison: of the two, over the tasks that can be compared; None without an entry or such tasks.
    """

    name: str
    is_category: bool
    ours: Mean
    published: float | None = None
    comparison: Comparison | None = None


def means(scores: Mapping[str, float], benchmark: Benchmark, kind: Kind = "") -> dict[str, Mean]:
    """The mean over each part of a benchmark, given only where every task of the part has a score.

    Args:
        scores: fractions by the name of the task.
        benchmark: the parts, see :attr:`Benchmark.parts`.
        kind: what was scored instead of the benchmark.
    """
    return {name: mean_of(scores, benchmark.only(tasks), kind) for name, tasks in benchmark.parts.items()}


def means_row(scores: Mapping[str, Any], benchmark: Benchmark) -> dict[str, dict[str, Any]]:
    """The means of an evaluation as ``scores.json`` has them, of its other content."""
    found = our_means(scores, benchmark)
    return {name: {"mean": mean.mean, "tasks": mean.counted, "of": mean.total} for name, mean in found.items()}


def our_means(scores: Mapping[str, Any], benchmark: Benchmark) -> dict[str, Mean]:
    """:func:`means` of the content of ``scores.json``."""
    return means(counted(scores), benchmark, kind_of(scores))


def part_means(scores: Mapping[str, Any], benchmark: Benchmark, expected: Expected | None = None) -> list[PartMean]:
    """Every mean of an evaluation, beside those of an entry.

    Args:
        scores: the content of ``scores.json``.
        benchmark: the rows.
        expected: the entry.
    """
    ours = our_means(scores, benchmark)
    theirs: Mapping[str, Mean] = {}
    compared: dict[str, Comparison] = {}
    if expected is not None:
        theirs = means({name: score.score for name, score in expected.scores.items()}, benchmark)
        found = compare_means(scores, compare(scores, expected, benchmark), expected, benchmark)
        compared = {mean.task: mean for mean in found}
    categories = {task.category for task in benchmark.tasks.values()}
    return [
        PartMean(name, name in categories, mean, _published(name, theirs, expected), compared.get(name))
        for name, mean in ours.items()
    ]


def _published(name: str, theirs: Mapping[str, Mean], expected: Expected | None) -> float | None:
    """The mean that follows from an entry's scores, else the one that it states."""
    if expected is None:
        return None
    of_scores = theirs[name].mean
    return expected.means.get(name) if of_scores is None else of_scores


def compare_means(
    scores: Mapping[str, Any], compared: Mapping[str, Comparison], expected: Expected, benchmark: Benchmark
) -> list[Comparison]:
    """Our mean over each part beside the published one.

    Both are taken over the tasks of the part that are compared, so that like stands beside like; the ``metric`` says
    over how many. A part of which the entry lacks a task has the mean that the entry states, if it does, and one of
    which a score of ours is missing has no mean of ours. A benchmark of one part has nothing that its tasks do not say.

    Args:
        scores: the content of ``scores.json``.
        compared: what :func:`compare` gave.
        expected: the entry.
        benchmark: the parts.
    """
    if list(benchmark.parts) == [OVERALL]:
        return []
    found = []
    for name, tasks in benchmark.parts.items():
        if not set(tasks) <= compared.keys():
            if name in expected.means:
                found.append(_stated(name, our_means(scores, benchmark)[name], expected))
            continue
        rows = [compared[task] for task in tasks]
        tolerance = expected.mean_tolerances.get(name, expected.tolerance)
        both = [(row.ours, row.published) for row in rows if row.ours is not None]
        missing = [row.task for row in rows if row.verdict == "missing"]
        words = f"mean of {len(tasks)}" if len(both) == len(tasks) else f"mean of {len(both)} of {len(tasks)}"
        published = _mean([row.published for row in rows])
        if missing:
            why = f"{len(missing)} of {len(tasks)} tasks are missing"
            found.append(Comparison(name, f"mean of {len(tasks)}", None, published, tolerance, "missing", why))
        elif not both:
            found.append(
                Comparison(name, words, None, published, tolerance, "differs", "none of its tasks is compared")
            )
        else:
            ours, theirs = (_mean(column) for column in zip(*both, strict=True))
            found.append(Comparison(name, words, ours, theirs, tolerance, verdict_of(ours, theirs, tolerance)))
    return found


def _stated(name: str, ours: Mean, expected: Expected) -> Comparison:
    """Our mean over a part beside one that the entry states and whose tasks it does not know."""
    published, tolerance = expected.means[name], expected.mean_tolerances.get(name, expected.tolerance)
    words = f"mean of {ours.total}"
    if ours.kind:
        why = "ours is a quick evaluation" if ours.kind == "quick" else "ours is a miniature"
        return Comparison(name, words, None, published, tolerance, "other protocol", why)
    if ours.mean is None:
        why = f"{ours.total - ours.counted} of {ours.total} tasks are missing"
        return Comparison(name, words, None, published, tolerance, "missing", why)
    verdict = verdict_of(ours.mean, published, tolerance)
    return Comparison(name, words, ours.mean, published, tolerance, verdict)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
