"""Scores of a file of predictions that anybody wrote, without a model, under the same rules as the row's own."""

import time
from pathlib import Path
from typing import Any

from mmembed.errors import InputError
from mmembed.evaluation.benchmark import Task
from mmembed.evaluation.metrics import mean_metrics
from mmembed.evaluation.rankings import Ranking, check_rules, relevant_targets, write_rankings
from mmembed.evaluation.retrieval_set import RetrievalSet
from mmembed.evaluation.runner import Evaluation, add_row, empty_scores, remove_results, sum_up
from mmembed.evaluation.scoring import Scoring
from mmembed.evaluation.statistics import group_means, macro_means
from mmembed.evaluation.submissions import GENERIC, Names, problems, read_file
from mmembed.files import write_json


def read_predictions(path: Path, task: Task, retrieval_set: RetrievalSet) -> list[Ranking]:
    """The rankings in a file of CIRR's, CIRCO's or the generic format; numbers and strings name a target alike.

    Raises:
        InputError: a file that is not whole for this row: a query without a list, a list shorter than a metric looks,
            a target twice or unknown, the query's own reference where the row removes it; the query is named. As
            :func:`mmembed.evaluation.rankings.check_rules` too.
    """
    check_rules(task, retrieval_set)
    pairs = read_file(path)
    if (problem := next(problems(pairs, GENERIC, task, retrieval_set, lenient=True), None)) is not None:
        raise problem.within(path)
    found, names = dict(pairs), Names(GENERIC, retrieval_set, lenient=True)
    longest = max(Scoring(task, retrieval_set).cutoffs)
    rankings = []
    for query in retrieval_set.queries:
        targets = [str(names.target(given)) for given in found[query]]
        if len(targets) < (least := min(longest, _rankable(task, retrieval_set, query))):
            raise InputError(
                f"{path}: query {query}", expected=f"at least {least} targets, for metrics at {longest}",
                got=len(targets), remedy="rank deeper, or score a row of smaller cut-offs",
            )  # fmt: skip
        right = relevant_targets(retrieval_set, query)
        first_hit = next((place for place, name in enumerate(targets, start=1) if name in right), None)
        rankings.append(Ranking(query, targets, [], right, first_hit))
    return rankings


def score_file(evaluation: Evaluation, task: Task, path: Path, *, write: bool = True) -> dict[str, Any]:
    """Score a file of predictions as a task.

    Args:
        evaluation: where the data lie, and where ``scores.json`` and ``rankings/`` go.
        task: the row.
        path: the file.
        write: whether to write them.

    Returns:
        The content of ``scores.json``.

    Raises:
        InputError: as :func:`read_predictions`, or data that cannot be used.
    """
    started = time.perf_counter()
    retrieval_set = evaluation.read(task)
    rankings = read_predictions(path, task, retrieval_set)
    scoring = Scoring(task, retrieval_set)
    judged = scoring.judged(rankings)
    values = scoring.values(judged)
    groups = group_means(values, scoring.groups)
    row = {
        "metric": task.metric,
        "score": scoring.score(values),
        "interval": list(scoring.interval(values)),
        "chance": scoring.chance(),
        "blind": None,
        "blinds": {},
        "metrics": mean_metrics(judged, scoring.cutoffs, also=(task.metric,)),
        "groups": groups,
        "macro": macro_means(groups),
        "candidate_groups": {},
        "queries": len(rankings),
        "corpus": len(retrieval_set.corpus),
        "seconds": round(time.perf_counter() - started, 3),
    }
    scores = empty_scores(evaluation, [task.name])
    add_row(scores, evaluation, task, retrieval_set, row)
    sum_up(scores, evaluation.benchmark)
    if write:
        remove_results(evaluation.output)
        write_rankings(evaluation.output / "rankings" / f"{task.name}.jsonl", rankings)
        write_json(evaluation.output / "scores.json", scores)
    return scores


def _rankable(task: Task, retrieval_set: RetrievalSet, query: str) -> int:
    """How many targets the query can rank at most."""
    own = retrieval_set.candidates[query] if task.candidates == "local" and retrieval_set.candidates else None
    names = retrieval_set.corpus if own is None else own
    removed = retrieval_set.references.get(query, ()) if task.reference == "removed" else ()
    return len(names) - sum(name in names for name in removed)
