"""The expected value of each metric for one query whose candidates are shuffled, in closed form.

Each function takes the positive grades of the query's relevant targets, the number n of its candidates, among them all
relevant ones, and the cut-off k.
"""

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

Grades: TypeAlias = Sequence[float]


def _num_hits(grades: Grades, n: int, k: int) -> float:
    """How many relevant targets stand among the first k: hypergeometric."""
    return min(k, n) * len(grades) / n


def _hit(grades: Grades, n: int, k: int) -> float:
    return 1 - math.comb(n - len(grades), min(k, n)) / math.comb(n, min(k, n))


def _best_hit(grades: Grades, n: int, k: int) -> float:
    return _hit([grade for grade in grades if grade == max(grades)], n, k)


def _precision(grades: Grades, n: int, k: int) -> float:
    return _num_hits(grades, n, k) / k


def _recall(grades: Grades, n: int, k: int) -> float:
    return min(k, n) / n if grades else 1.0


def _f1(grades: Grades, n: int, k: int) -> float:
    # with h hits, f1 is 2h / (k + relevant): linear in h
    return 2 * _num_hits(grades, n, k) / (k + len(grades))


def _map(grades: Grades, n: int, k: int) -> float:
    return _summed_precision(len(grades), n, k) / min(len(grades), k) if grades else 0.0


def _map_all(grades: Grades, n: int, k: int) -> float:
    return _summed_precision(len(grades), n, k) / len(grades) if grades else 0.0


def _summed_precision(r: int, n: int, k: int) -> float:
    """A relevant target stands at rank i with probability r/n, with (i-1)(r-1)/(n-1) others expected above it."""
    others = (r - 1) / (n - 1) if n > 1 else 0.0
    return r / n * math.fsum((1 + (rank - 1) * others) / rank for rank in range(1, min(k, n) + 1))


def _mrr(grades: Grades, n: int, k: int) -> float:
    """The first relevant target stands at rank i if none of i-1 draws was relevant and the next one is."""
    missed, expected = 1.0, 0.0
    for rank in range(1, min(k, n) + 1):
        left = n - rank + 1
        expected += missed * len(grades) / left / rank
        missed *= (left - len(grades)) / left
    return expected


def _ndcg_exponential(grades: Grades, n: int, k: int) -> float:
    return _ndcg([2**grade - 1 for grade in grades], n, k)


def _ndcg_binary(grades: Grades, n: int, k: int) -> float:
    return _ndcg([1.0] * len(grades), n, k)


def _ndcg(gains: Grades, n: int, k: int) -> float:
    """Every rank expects the mean gain of the candidates."""
    best = _dcg(sorted(gains, reverse=True)[:k])
    return _dcg([sum(gains) / n] * min(k, n)) / best if best else 0.0


def _dcg(gains: Grades) -> float:
    return math.fsum(gain / math.log2(rank + 1) for rank, gain in enumerate(gains, start=1))


EXPECTED: dict[str, Callable[[Grades, int, int], float]] = {
    "hit": _hit,
    "best_hit": _best_hit,
    "ndcg_linear": _ndcg,
    "ndcg_exponential": _ndcg_exponential,
    "ndcg_binary": _ndcg_binary,
    "precision": _precision,
    "recall": _recall,
    "f1": _f1,
    "map": _map,
    "map_all": _map_all,
    "mrr": _mrr,
}
