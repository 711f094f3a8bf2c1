"""Scores of a task from its rankings: of every query, of groups, of all."""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from mmembed.errors import InputError, nearest
from mmembed.evaluation.benchmark import Task
from mmembed.evaluation.metrics import Judged, chance, judge, metric_and_k, metric_values
from mmembed.evaluation.published_fault import permuted_grades
from mmembed.evaluation.rankings import Ranking, relevant_targets
from mmembed.evaluation.retrieval_set import Groups, RetrievalSet
from mmembed.evaluation.statistics import (
    bootstrap_interval,
    cluster_interval,
    group_means,
    macro_interval,
    macro_means,
)
from mmembed.items import Item, source_fingerprint

Array: TypeAlias = npt.NDArray[np.float64]

REPORT_DEPTH = 10
"""Targets kept in a ranking even where no metric looks that far."""


class Scoring:
    """How a task scores the rankings of a set: one rule for its score, its chance and its blinded scores.

    Raises:
        InputError: the row asks for a kind of group that the set does not bring.
    """

    def __init__(self, task: Task, retrieval_set: RetrievalSet) -> None:
        self.task = task
        self.cutoffs = sorted({*task.ks, metric_and_k(task.metric)[1]})
        self.depth = max(REPORT_DEPTH, *self.cutoffs)
        self.groups: list[Groups] = [retrieval_set.groups.get(query_id, {}) for query_id in retrieval_set.queries]
        self._grades = [relevant_targets(retrieval_set, query_id) for query_id in retrieval_set.queries]
        if task.ndcg_fault_seed is not None:
            self._grades = permuted_grades(self._grades, task.ndcg_fault_seed)
        own = retrieval_set.candidates if task.candidates == "local" else None
        out = retrieval_set.references if task.reference == "removed" else {}
        self._sizes = [
            len(retrieval_set.corpus) - len(out.get(query_id, ()))
            if own is None
            else len(set(own[query_id]) - set(out.get(query_id, ())))
            for query_id in retrieval_set.queries
        ]
        self._clusters = list(map(_pictures, retrieval_set.queries.values())) if task.interval == "pictures" else []
        if task.macro is not None:
            _check_kind(task, self.groups)

    def judged(self, rankings: Sequence[Ranking]) -> Judged:
        """The rankings of all queries with grades in place of targets."""
        return judge([ranking.targets for ranking in rankings], self._grades, self.depth)

    def values(self, judged: Judged) -> Array:
        """``[Q]`` the task's metric of each query."""
        return metric_values(judged, self.task.metric)

    def score(self, values: Array) -> float:
        """The score of all queries, from the values of each: their mean, or the mean over groups."""
        if self.task.macro is None:
            return float(values.mean())
        return macro_means(group_means(values, self.groups))[self.task.macro]

    def interval(self, values: Array) -> tuple[float, float]:
        """Low and high end of the 95 % interval of the score."""
        if self._clusters:
            return cluster_interval(values, self._clusters)
        if self.task.macro is None:
            return bootstrap_interval(values)
        return macro_interval(values, self.groups, self.task.macro)

    def chance(self) -> float:
        """The score that random rankings are expected to get."""
        grades = [list(own.values()) for own in self._grades]
        expected = [chance(self.task.metric, [own], [size]) for own, size in zip(grades, self._sizes, strict=True)]
        return self.score(np.array(expected))


def _pictures(item: Item) -> tuple[str, ...]:
    """Names what the media of a query show, whatever is pointed at in them; a text stands for itself."""
    return tuple(source_fingerprint(medium.source) for medium in item.media) or (item.fingerprint(),)


def _check_kind(task: Task, groups: Sequence[Groups]) -> None:
    kind, kinds = str(task.macro), {name for own in groups for name, found in own.items() if found}
    if kind not in kinds:
        raise InputError(
            f"{task.name}.macro", expected="a kind of group of the set", got=f"'{kind}'",
            remedy=nearest(kind, kinds) if kinds else "add groups.jsonl to the data",
        )  # fmt: skip
