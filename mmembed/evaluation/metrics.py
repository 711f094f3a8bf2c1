"""Ranking metrics on judged rankings, and the score a random ranking would get.

The formulas are those of the published VLM2Vec evaluation (its ``RankingMetrics``): precision divides by k even where
fewer targets were ranked, ``map`` divides by min(relevant, k), and a query without any relevant target has recall 1
and zero elsewhere. nDCG pairs every grade with its own target. ``map_all`` and ``ndcg_binary`` are trec_eval's
``map_cut``, and its ``ndcg_cut`` of judgements without grades.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from mmembed.errors import InputError, nearest
from mmembed.evaluation.chance import EXPECTED

Array: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Judged:
    """Rankings with relevance in place of the targets: all that a metric needs.

    Args:
        gains: ``[Q, K]`` grade of the target at each rank, 0 where it is not relevant or nothing was ranked.
        ideal: ``[Q, R]`` all positive grades of each query, falling, filled up with 0.
    """

    gains: Array
    ideal: Array

    @property
    def hits(self) -> Array:
        """``[Q, K]`` 1 where the target at that rank is relevant."""
        return (self.gains > 0).astype(np.float64)

    @property
    def num_relevant(self) -> Array:
        """``[Q]`` how many relevant targets each query has, ranked or not."""
        return _total(np.sign(self.ideal))


def judge(rankings: Sequence[Sequence[str]], relevance: Sequence[Mapping[str, float]], depth: int) -> Judged:
    """Put grades in place of target ids.

    Args:
        rankings: target ids of each query, best first; each at most once.
        relevance: grade of each judged target of the same queries; a target without one is not relevant.
        depth: K; a metric at k needs ``depth >= k``.
    """
    gains = np.zeros((len(rankings), depth))
    ideal = np.zeros((len(rankings), max([1, *map(len, relevance)])))
    for row, (ranking, grades) in enumerate(zip(rankings, relevance, strict=True)):
        for rank, target in enumerate(ranking[:depth]):
            gains[row, rank] = grades.get(target, 0.0)
        best = sorted((grade for grade in grades.values() if grade > 0), reverse=True)
        ideal[row, : len(best)] = best
    return Judged(gains, ideal)


def hit(judged: Judged, k: int) -> Array:
    """1 if a relevant target is among the first k: ``[Q]``."""
    return _largest(judged.hits[:, :k])


def best_hit(judged: Judged, k: int) -> Array:
    """1 if a target of the query's highest grade is among the first k: ``[Q]`` (CIRCO's recall, of its one target)."""
    best = judged.ideal[:, :1]
    return _largest(((judged.gains[:, :k] == best) & (best > 0)).astype(np.float64))


def precision(judged: Judged, k: int) -> Array:
    """The part of k places that hold a relevant target: ``[Q]``."""
    return _total(judged.hits[:, :k]) / k


def recall(judged: Judged, k: int) -> Array:
    """The part of the relevant targets that are among the first k; 1 where there are none: ``[Q]``."""
    return _ratio(_total(judged.hits[:, :k]), judged.num_relevant, otherwise=1.0)


def f1(judged: Judged, k: int) -> Array:
    """The harmonic mean of precision and recall at k: ``[Q]``."""
    p, r = precision(judged, k), recall(judged, k)
    return _ratio(2 * p * r, p + r)


def average_precision(judged: Judged, k: int) -> Array:
    """Precision at each relevant rank up to k, summed, over min(relevant, k): ``[Q]``."""
    return _ratio(_summed_precision(judged, k), np.minimum(judged.num_relevant, k))


def average_precision_all(judged: Judged, k: int) -> Array:
    """As :func:`average_precision` over all relevant targets, more than k of them too: ``[Q]``."""
    return _ratio(_summed_precision(judged, k), judged.num_relevant)


def reciprocal_rank(judged: Judged, k: int) -> Array:
    """One over the rank of the first relevant target, 0 if it is beyond k: ``[Q]``."""
    hits = judged.hits[:, :k]
    return _largest(hits / _ranks(hits.shape[1]))


def ndcg_linear(judged: Judged, k: int) -> Array:
    """Discounted gain over the best possible one, a target's gain being its grade: ``[Q]``."""
    return _ratio(_dcg(judged.gains[:, :k]), _dcg(judged.ideal[:, :k]))


def ndcg_exponential(judged: Judged, k: int) -> Array:
    """As :func:`ndcg_linear` with gain ``2**grade - 1``: ``[Q]``."""
    return _ratio(_dcg(2 ** judged.gains[:, :k] - 1), _dcg(2 ** judged.ideal[:, :k] - 1))


def ndcg_binary(judged: Judged, k: int) -> Array:
    """As :func:`ndcg_linear` with gain 1 for every relevant target, whatever its grade: ``[Q]``."""
    return _ratio(_dcg(judged.hits[:, :k]), _dcg(np.sign(judged.ideal[:, :k])))


Metric: TypeAlias = Callable[[Judged, int], Array]

METRICS: dict[str, Metric] = {
    "hit": hit,
    "best_hit": best_hit,
    "ndcg_linear": ndcg_linear,
    "ndcg_exponential": ndcg_exponential,
    "ndcg_binary": ndcg_binary,
    "precision": precision,
    "recall": recall,
    "f1": f1,
    "map": average_precision,
    "map_all": average_precision_all,
    "mrr": reciprocal_rank,
}
OTHER_NAMES = {"success": "hit", "any_recall": "hit"}
"""What other benchmarks call a metric: trec_eval's success, the Recall@k of M-BEIR and GeneCIS."""


def metric_and_k(name: str) -> tuple[str, int]:
    """``("hit", 1)`` of ``"hit@1"``, and of ``"success@1"``.

    Raises:
        InputError: a metric that is neither in :data:`METRICS` nor in :data:`OTHER_NAMES`, or a cut-off that is not a
            positive number.
    """
    kind, _, k = name.partition("@")
    known = METRICS.keys() | OTHER_NAMES.keys()
    if kind not in known:
        raise InputError("metric", expected="metric@k", got=f"'{name}'", remedy=nearest(kind, known))
    if not k.isdecimal() or int(k) < 1:
        raise InputError("metric", expected=f"{kind}@k with k of at least 1", got=f"'{name}'", remedy=f"write {kind}@1")
    return OTHER_NAMES.get(kind, kind), int(k)


def metric_values(judged: Judged, name: str) -> Array:
    """The value of a metric for each query: ``[Q]``.

    Args:
        judged: the rankings.
        name: the metric with its cut-off, e.g. ``hit@1``.

    Raises:
        InputError: as :func:`metric_and_k`, or a cut-off beyond the depth that was judged.
    """
    kind, k = metric_and_k(name)
    depth = judged.gains.shape[1]
    if k > depth:
        raise InputError(name, expected=f"k of at most {depth}, the depth judged", got=k, remedy="rank deeper")
    return METRICS[kind](judged, k)


def mean_metrics(judged: Judged, ks: Sequence[int], also: Sequence[str] = ()) -> dict[str, float]:
    """The mean over queries of every metric at every k, keyed ``hit@1``.

    Args:
        judged: the rankings.
        ks: the cut-offs.
        also: metrics with their cut-offs that are listed too, e.g. ``success@1``.

    Raises:
        InputError: as :func:`metric_values`.
    """
    names = dict.fromkeys([*(f"{kind}@{k}" for kind in METRICS for k in ks), *also])
    return {name: float(metric_values(judged, name).mean()) for name in names}


def chance(name: str, grades: Sequence[Sequence[float]], num_candidates: Sequence[int]) -> float:
    """The expected value of a metric when every query's candidates are shuffled, in closed form.

    Args:
        name: the metric with its cut-off, e.g. ``mrr@10``.
        grades: for each query the positive grades of its relevant targets, all of them among its candidates.
        num_candidates: how many targets each query ranks.
    """
    kind, k = metric_and_k(name)
    expected = EXPECTED[kind]
    return math.fsum(expected(own, n, k) for own, n in zip(grades, num_candidates, strict=True)) / len(grades)


def _summed_precision(judged: Judged, k: int) -> Array:
    hits = judged.hits[:, :k]
    at_rank = hits.cumsum(axis=1) / _ranks(hits.shape[1])
    return _total(at_rank * hits)


def _dcg(gains: Array) -> Array:
    return _total(gains / np.log2(_ranks(gains.shape[1]) + 1))


def _total(values: Array) -> Array:
    total: Array = values.sum(axis=1)
    return total


def _largest(values: Array) -> Array:
    largest: Array = values.max(axis=1)
    return largest


def _ranks(k: int) -> Array:
    return np.arange(1, k + 1, dtype=np.float64)


def _ratio(above: Array, below: Array, otherwise: float = 0.0) -> Array:
    """``above / below``, and ``otherwise`` where there is nothing to divide by."""
    return np.divide(above, below, out=np.full_like(above, otherwise), where=below > 0)
