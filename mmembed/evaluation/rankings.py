"""Rankings: what each query found, as a value and as a file of JSON lines."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mmembed.errors import InputError
from mmembed.evaluation.benchmark import Task
from mmembed.evaluation.retrieval_set import RetrievalSet
from mmembed.files import write_text

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Ranking:
    """What one query found.

    Args:
        query_id: the query.
        targets: ids of the best targets, best first.
        scores: their scores.
        relevant: grades of the targets that are right.
        first_hit: rank of the first right target, counted from 1; None when it is not among ``targets``.
    """

    query_id: str
    targets: list[str]
    scores: list[float]
    relevant: dict[str, float]
    first_hit: int | None


def check_rules(task: Task, retrieval_set: RetrievalSet) -> None:
    """Refuse a set that lacks what the row's rules are about.

    Raises:
        InputError: no candidates where the row ranks these alone, no references where it removes them.
    """
    if task.candidates == "local" and retrieval_set.candidates is None:
        raise InputError(
            f"{task.name}.candidates", expected="'shared' for a set without candidates", got="'local'",
            remedy="add candidates.jsonl to the data, or change the row",
        )  # fmt: skip
    if task.reference == "removed" and not retrieval_set.references:
        raise InputError(
            f"{task.name}.reference", expected="'kept' for a set that names no references", got="'removed'",
            remedy="add references.jsonl to the data, or change the row",
        )  # fmt: skip


def rank(task: Task, retrieval_set: RetrievalSet, queries: "Tensor", targets: "Tensor", depth: int) -> list[Ranking]:
    """Rank the candidates of every query by inner product.

    Args:
        task: says whose candidates are ranked, and who wins ties.
        retrieval_set: gives ids, relevance and candidates.
        queries: ``[Q, D]`` in the order of the set's queries.
        targets: ``[N, D]`` in the order of the set's corpus.
        depth: how many targets are kept for each query.

    Raises:
        InputError: as :func:`check_rules`.
    """
    # what only reads rankings needs no torch
    from mmembed.index.topk import top_k

    check_rules(task, retrieval_set)
    names = list(retrieval_set.corpus)
    row_of = {name: row for row, name in enumerate(names)}
    right = [relevant_targets(retrieval_set, query_id) for query_id in retrieval_set.queries]
    shown = [[row_of[t] for t in retrieval_set.references.get(q, ())] for q in retrieval_set.queries]
    candidates = None
    if task.candidates == "local" and retrieval_set.candidates is not None:
        candidates = [[row_of[t] for t in retrieval_set.candidates[q]] for q in retrieval_set.queries]
    late = [[row_of[t] for t in grades] for grades in right] if task.ties == "pessimistic" else None
    excluded = shown if task.reference == "removed" else None
    scores, rows = top_k(queries, targets, depth, candidates=candidates, lose_ties=late, excluded=excluded)
    rankings = []
    for query_id, grades, own_scores, own_rows in zip(
        retrieval_set.queries, right, scores.tolist(), rows.tolist(), strict=True
    ):
        found = [names[row] for row in own_rows if row >= 0]
        first_hit = next((place for place, name in enumerate(found, start=1) if name in grades), None)
        rankings.append(Ranking(query_id, found, own_scores[: len(found)], grades, first_hit))
    return rankings


def reference_first(task: Task, retrieval_set: RetrievalSet, queries: "Tensor", targets: "Tensor") -> float | None:
    """The part of the queries that find first what they show themselves, whether or not the row removes it.

    Args:
        task: says whose candidates are ranked.
        retrieval_set: names what each query shows.
        queries: ``[Q, D]`` in the order of the set's queries.
        targets: ``[N, D]`` in the order of the set's corpus.

    Returns:
        A fraction; None where no query ranks what it shows: of a set that names none, or has none among candidates.
    """
    shown, own = retrieval_set.references, retrieval_set.candidates if task.candidates == "local" else None
    if not any(target in own[query] if own else True for query, targets in shown.items() for target in targets):
        return None
    first = rank(replace(task, reference="kept"), retrieval_set, queries, targets, depth=1)
    return sum(ranking.targets[0] in shown[ranking.query_id] for ranking in first) / len(first)


def relevant_targets(retrieval_set: RetrievalSet, query_id: str) -> dict[str, float]:
    """The grades of the targets that are right for a query."""
    return {target: grade for target, grade in retrieval_set.relevance.get(query_id, {}).items() if grade > 0}


def write_rankings(path: Path, rankings: Iterable[Ranking]) -> None:
    """Write one JSON line a query, the fields of :class:`Ranking`."""
    write_text(path, "".join(json.dumps(asdict(ranking), ensure_ascii=False) + "\n" for ranking in rankings))


def read_rankings(path: Path) -> list[Ranking]:
    """Read what :func:`write_rankings` wrote."""
    with path.open(encoding="utf-8") as lines:
        return [Ranking(**json.loads(line)) for line in lines]
