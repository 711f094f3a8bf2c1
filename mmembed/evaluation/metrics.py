"""Ranking metrics on judged rankings, and the score a random ranking would get.

The formulas are those of the published VLM2Vec evaluation (its ``RankingMetrics``): precision divides by k even where
fewer targets were ranked, average precision divides by min(relevant, k), and a query without any relevant target has
recall 1 and zero elsewhere. nDCG pairs every grade with its own target.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from mmembed.errors import InputError, nearest

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
    hits = judged.hits[:, :k]
    at_rank = hits.cumsum(axis=1) / _ranks(hits.shape[1])
    return _ratio(_total(at_rank * hits), np.minimum(judged.num_relevant, k))


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


Metric: TypeAlias = Callable[[Judged, int], Array]

METRICS: dict[str, Metric] = {
    "hit": hit,
    "ndcg_linear": ndcg_linear,
    "ndcg_exponential": ndcg_exponential,
    "precision": precision,
    "recall": recall,
    "f1": f1,
    "map": average_precision,
    "mrr": reciprocal_rank,
}


def metric_and_k(name: str) -> tuple[str, int]:
    """``("hit", 1)`` of ``"hit@1"``.

    Raises:
        InputError: a metric that is not in :data:`METRICS`, or a cut-off that is not a positive number.
    """
    kind, _, k = name.partition("@")
    if kind not in METRICS:
        raise InputError("metric", expected="metric@k", got=f"'{name}'", remedy=nearest(kind, METRICS))
    if not k.isdecimal() or int(k) < 1:
        raise InputError("metric", expected=f"{kind}@k with k of at least 1", got=f"'{name}'", remedy=f"write {kind}@1")
    return kind, int(k)


def mean_metrics(judged: Judged, ks: Sequence[int]) -> dict[str, float]:
    """The mean over queries of every metric at every k, keyed ``hit@1``.

    Raises:
        InputError: a k beyond the depth that was judged.
    """
    depth = judged.gains.shape[1]
    if max(ks) > depth:
        raise InputError("ks", expected=f"at most {depth}, the depth judged", got=max(ks), remedy="judge deeper")
    return {f"{name}@{k}": float(metric(judged, k).mean()) for name, metric in METRICS.items() for k in ks}


def chance(name: str, grades: Sequence[Sequence[float]], num_candidates: Sequence[int]) -> float:
    """The expected value of a metric when every query's candidates are shuffled, in closed form.

    Args:
        name: the metric with its cut-off, e.g. ``mrr@10``.
        grades: for each query the positive grades of its relevant targets, all of them among its candidates.
        num_candidates: how many targets each query ranks.
    """
    kind, k = metric_and_k(name)
    expected = _CHANCE[kind]
    return math.fsum(expected(list(own), n, k) for own, n in zip(grades, num_candidates, strict=True)) / len(grades)


def _expected_hits(grades: list[float], n: int, k: int) -> float:
    return min(k, n) * len(grades) / n


def _chance_hit(grades: list[float], n: int, k: int) -> float:
    return 1 - math.comb(n - len(grades), min(k, n)) / math.comb(n, min(k, n))


def _chance_precision(grades: list[float], n: int, k: int) -> float:
    return _expected_hits(grades, n, k) / k


def _chance_recall(grades: list[float], n: int, k: int) -> float:
    return min(k, n) / n if grades else 1.0


def _chance_f1(grades: list[float], n: int, k: int) -> float:
    # with h hits, f1 is 2h / (k + relevant): linear in h
    return 2 * _expected_hits(grades, n, k) / (k + len(grades))


def _chance_map(grades: list[float], n: int, k: int) -> float:
    """A relevant target stands at rank i with probability r/n, with (i-1)(r-1)/(n-1) others expected above it."""
    r = len(grades)
    others = (r - 1) / (n - 1) if n > 1 else 0.0
    precisions = math.fsum((1 + (rank - 1) * others) / rank for rank in range(1, min(k, n) + 1))
    return r / n * precisions / min(r, k) if r else 0.0


def _chance_mrr(grades: list[float], n: int, k: int) -> float:
    """The first relevant target stands at rank i if none of i-1 draws was relevant and the next one is."""
    missed, expected = 1.0, 0.0
    for rank in range(1, min(k, n) + 1):
        left = n - rank + 1
        expected += missed * len(grades) / left / rank
        missed *= (left - len(grades)) / left
    return expected


def _chance_ndcg(grades: list[float], n: int, k: int) -> float:
    """Every rank expects the mean gain of the candidates."""
    discounts = 1 / np.log2(np.arange(2, min(k, n) + 2))
    best = _dcg(np.array([sorted(grades, reverse=True)[:k]]))[0]
    return float(sum(grades) / n * discounts.sum() / best) if best else 0.0


def _chance_ndcg_exponential(grades: list[float], n: int, k: int) -> float:
    return _chance_ndcg([2**grade - 1 for grade in grades], n, k)


_CHANCE: dict[str, Callable[[list[float], int, int], float]] = {
    "hit": _chance_hit,
    "ndcg_linear": _chance_ndcg,
    "ndcg_exponential": _chance_ndcg_exponential,
    "precision": _chance_precision,
    "recall": _chance_recall,
    "f1": _chance_f1,
    "map": _chance_map,
    "mrr": _chance_mrr,
}


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
