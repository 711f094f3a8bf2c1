"""Evaluate one task: embed, rank, and score beside chance and beside the same model blinded."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mmembed.evaluation.baselines import baseline_scores
from mmembed.evaluation.benchmark import Task
from mmembed.evaluation.candidate_groups import GroupScores, candidate_group_scores
from mmembed.evaluation.crew import Crew
from mmembed.evaluation.metrics import mean_metrics
from mmembed.evaluation.rankings import Ranking, check_rules, rank, reference_first
from mmembed.evaluation.retrieval_set import RetrievalSet
from mmembed.evaluation.scores import highest_blind
from mmembed.evaluation.scoring import Scoring
from mmembed.evaluation.statistics import GroupMean, group_means, macro_means
from mmembed.evaluation.vectors import TaskVectors, embed_task
from mmembed.media.settings import MediaSettings


@dataclass(frozen=True)
class TaskResult:
    """What evaluating one task gave.

    Args:
        task: the row.
        score: the value of the task's metric, a fraction.
        interval: of the score, 95 % of bootstrap samples of the queries: low, high.
        chance: the score of a random ranking.
        blinds: the score under each blinding that the row asks for.
        metrics: every metric at every cut-off, means over queries, fractions.
        groups: of each kind and group, the score over its queries and how many they are.
        candidate_groups: of each kind and group of candidates, the score where they alone are the wrong ones.
        reference_first: the part of the queries that find first what they show themselves, before it is removed; None
            where no query ranks it.
        baselines: what the halves of composed queries score, see :mod:`mmembed.evaluation.baselines`; None unless
            asked for, empty where the queries are not composed.
        rankings: one for each query.
        vectors: embeddings in the order of the set.
        seconds: wall time of embedding, ranking and scoring, by these names.
    """

    task: Task
    score: float
    interval: tuple[float, float]
    chance: float
    blinds: dict[str, float]
    metrics: dict[str, float]
    groups: Mapping[str, Mapping[str, GroupMean]]
    candidate_groups: GroupScores
    reference_first: float | None
    baselines: dict[str, dict[str, Any]] | None
    rankings: list[Ranking]
    vectors: TaskVectors
    seconds: dict[str, float]

    def row(self) -> dict[str, Any]:
        """The task's entry in ``scores.json``."""
        more = {"reference_first": self.reference_first, "baselines": self.baselines}
        return {
            "metric": self.task.metric,
            "score": self.score,
            "interval": list(self.interval),
            "chance": self.chance,
            "blind": highest_blind(self.blinds),
            "blinds": self.blinds,
            "metrics": self.metrics,
            "groups": self.groups,
            "macro": macro_means(self.groups),
            "candidate_groups": self.candidate_groups,
            "queries": len(self.vectors.queries),
            "corpus": len(self.vectors.targets),
            "dimension": self.vectors.queries.shape[1],
            "seconds": round(sum(self.seconds.values()), 3),
        } | {name: found for name, found in more.items() if found is not None}


def evaluate_task(
    task: Task,
    retrieval_set: RetrievalSet,
    crew: Crew,
    *,
    media: MediaSettings | None = None,
    baselines: bool = False,
) -> TaskResult:
    """Embed a set, rank it, and score the rankings beside chance and beside blinded queries or targets.

    Args:
        task: the row.
        retrieval_set: its data.
        crew: who embeds; it gets each distinct item once.
        media: how media of blinded items are decoded; None is the default of :class:`MediaSettings`.
        baselines: score the halves of composed queries too.

    Raises:
        InputError: the row asks for candidates, references or groups that the set does not bring, or a blinding changes
            nothing.
    """
    check_rules(task, retrieval_set)
    started = time.perf_counter()
    decoding = media or MediaSettings()
    scoring = Scoring(task, retrieval_set)
    vectors = embed_task(task, retrieval_set, crew, decoding)
    halves = baseline_scores(task, retrieval_set, crew, decoding, vectors.targets) if baselines else None
    embedded = time.perf_counter()
    rankings = rank(task, retrieval_set, vectors.queries, vectors.targets, scoring.depth)
    ranked = time.perf_counter()
    judged = scoring.judged(rankings)
    values = scoring.values(judged)
    blinds = {
        name: scoring.score(scoring.values(scoring.judged(rank(task, retrieval_set, *blinded, scoring.depth))))
        for name, blinded in vectors.blinded.items()
    }
    return TaskResult(
        task=task,
        score=scoring.score(values),
        interval=scoring.interval(values),
        chance=scoring.chance(),
        blinds=blinds,
        metrics=mean_metrics(judged, scoring.cutoffs, also=(task.metric,)),
        groups=group_means(values, scoring.groups),
        candidate_groups=candidate_group_scores(task, retrieval_set, vectors),
        reference_first=reference_first(task, retrieval_set, vectors.queries, vectors.targets),
        baselines=halves,
        rankings=rankings,
        vectors=vectors,
        seconds={"embed": embedded - started, "rank": ranked - embedded, "score": time.perf_counter() - ranked},
    )
