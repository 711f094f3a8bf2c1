"""Scores against parts of a query's candidates: the right targets beside the wrong ones of one group, e.g. one swap.

Nothing is embedded for them: the vectors of a task are ranked again among fewer candidates.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import TypeAlias, TypedDict

import torch
from torch import Tensor

from mmembed.evaluation.benchmark import Task
from mmembed.evaluation.rankings import rank, relevant_targets
from mmembed.evaluation.retrieval_set import RetrievalSet
from mmembed.evaluation.scoring import Array, Scoring
from mmembed.evaluation.vectors import TaskVectors


class GroupScore(TypedDict):
    """The score among the candidates of one group, as ``scores.json`` has it."""

    score: float
    interval: list[float]
    chance: float
    blinds: dict[str, float]
    queries: int


GroupScores: TypeAlias = Mapping[str, Mapping[str, GroupScore]]
"""By kind of group and group."""


def candidate_group_scores(task: Task, retrieval_set: RetrievalSet, vectors: TaskVectors) -> GroupScores:
    """The score of each group of candidates, over the queries that have it.

    Args:
        task: the row; without candidates of their own for its queries there are no groups.
        retrieval_set: its data.
        vectors: of its queries and targets, and of the blinded ones.
    """
    if task.candidates != "local":
        return {}
    kinds: dict[str, list[str]] = {}
    for groups in retrieval_set.candidate_groups.values():
        for kind, own in groups.items():
            known = kinds.setdefault(kind, [])
            known += [group for group in own if group not in known]
    return {
        kind: {group: _score(task, *_among(retrieval_set, kind, group), vectors) for group in groups}
        for kind, groups in kinds.items()
    }


def _among(retrieval_set: RetrievalSet, kind: str, group: str) -> tuple[RetrievalSet, list[int]]:
    """The queries that have the group, their candidates those of it and the right ones; and their rows."""
    own = {query: groups.get(kind, {}).get(group, ()) for query, groups in retrieval_set.candidate_groups.items()}
    rows = [row for row, query in enumerate(retrieval_set.queries) if own.get(query)]
    queries = {query: item for query, item in retrieval_set.queries.items() if own.get(query)}
    candidates = {
        query: list(dict.fromkeys([*relevant_targets(retrieval_set, query), *own[query]])) for query in queries
    }
    relevance = {query: retrieval_set.relevance[query] for query in queries}
    among = replace(
        retrieval_set, queries=queries, relevance=relevance, candidates=candidates, groups={}, candidate_groups={}
    )
    return among, rows


def _score(task: Task, among: RetrievalSet, rows: list[int], vectors: TaskVectors) -> GroupScore:
    scoring = Scoring(replace(task, macro=None), among)
    kept = torch.tensor(rows)

    def values_of(queries: Tensor, targets: Tensor) -> Array:
        return scoring.values(scoring.judged(rank(task, among, queries[kept], targets, scoring.depth)))

    values = values_of(vectors.queries, vectors.targets)
    blinds = {name: scoring.score(values_of(*blinded)) for name, blinded in vectors.blinded.items()}
    return GroupScore(
        score=scoring.score(values), interval=list(scoring.interval(values)), chance=scoring.chance(), blinds=blinds,
        queries=len(rows),
    )  # fmt: skip
