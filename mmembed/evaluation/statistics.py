"""How sure a mean over queries is: intervals by the bootstrap, means of groups, and a test between paired runs.

The interval is the percentile bootstrap (Efron and Tibshirani 1993, chapter 13), of queries or of clusters of them. The
test is the randomisation test that flips the sign of each query's difference (Smucker et al. 2007, CIKM). All is a
function of values and a seed.
"""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypedDict

import numpy as np
import numpy.typing as npt

from mmembed.errors import InputError, nearest

Array: TypeAlias = npt.NDArray[np.float64]
GroupsOfQueries: TypeAlias = Sequence[Mapping[str, Sequence[str]]]
"""For each query its values of each kind, e.g. ``{"aspect": ("addition", "negation")}``."""

BLOCK = 1 << 20
"""Random numbers held at once; bounds the memory, never changes a result."""


class GroupMean(TypedDict):
    """The mean over the queries of a group, and how many they are."""

    score: float
    queries: int


@dataclass(frozen=True)
class Paired:
    """What run b changes over run a on the same queries.

    Args:
        difference: mean of b less mean of a.
        interval: of the difference: low, high.
        p_value: how often differences of random sign have a mean as far from 0.
        wins: queries where b is higher.
        ties: queries where both are equal.
        losses: queries where b is lower.
    """

    difference: float
    interval: tuple[float, float]
    p_value: float
    wins: int
    ties: int
    losses: int


def bootstrap_interval(
    values: Array, *, confidence: float = 0.95, resamples: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """The interval of a mean over queries: low, high.

    Args:
        values: ``[Q]`` a value for each query.
        confidence: the part of the resampled means that lies inside.
        resamples: how often Q queries are drawn with replacement.
        seed: of the draws.

    Raises:
        InputError: no values.
    """
    # not by BLAS, whose sums depend on the rows beside them
    means = [(drawn * values).sum(axis=1) / len(values) for drawn in _resampled(len(values), resamples, seed)]
    return _middle(np.concatenate(means), confidence)


def cluster_interval(
    values: Array, clusters: Sequence[Hashable], *, confidence: float = 0.95, resamples: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """The interval of a mean over queries that come in clusters, e.g. several on one picture: clusters are drawn.

    Args:
        values: ``[Q]`` a value for each query.
        clusters: for each query the name of its cluster. Of clusters of one query each this is
            :func:`bootstrap_interval`.
        confidence: see there.
        resamples: how often as many clusters as there are are drawn with replacement.
        seed: of the draws.

    Raises:
        InputError: no values.
    """
    rows = {cluster: row for row, cluster in enumerate(dict.fromkeys(clusters))}
    of_query = [rows[cluster] for cluster in clusters]
    sums, counts = np.bincount(of_query, weights=values), np.bincount(of_query).astype(np.float64)
    # not by BLAS, whose sums depend on the rows beside them
    means = [
        (drawn * sums).sum(axis=1) / (drawn * counts).sum(axis=1) for drawn in _resampled(len(rows), resamples, seed)
    ]
    return _middle(np.concatenate(means), confidence)


def macro_interval(
    values: Array, groups: GroupsOfQueries, kind: str, *, confidence: float = 0.95, resamples: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """The interval of the mean over the groups of one kind, as :func:`bootstrap_interval` does it: queries are drawn.

    Queries without a value of this kind are left out. A group none of whose queries is drawn is left out of that
    resample's mean.

    Raises:
        InputError: no query has a value of this kind.
    """
    rows = list(_rows_by_value(groups, kind).values())
    if not rows:
        kinds = {known for own in groups for known in own}
        raise InputError(
            "groups", expected="queries with a value of the kind", got=f"'{kind}'", remedy=nearest(kind, kinds)
        )
    members = np.zeros((len(groups), len(rows)))
    for column, own in enumerate(rows):
        members[own, column] = 1.0
    grouped = members.any(axis=1)
    members = members[grouped]
    weighted = members * values[grouped, None]
    means = []
    for drawn in _resampled(len(members), resamples, seed):
        sums, counts = (np.einsum("bq,qg->bg", drawn, own) for own in (weighted, members))
        present = counts > 0
        means.append(np.divide(sums, counts, where=present, out=np.zeros_like(sums)).sum(axis=1) / present.sum(axis=1))
    return _middle(np.concatenate(means), confidence)


def group_means(values: Array, groups: GroupsOfQueries) -> dict[str, dict[str, GroupMean]]:
    """The mean over the queries of each group, by kind and value, in the order in which queries name them.

    A query counts in each group that it names, and in no group of a kind of which it has no value.

    Args:
        values: ``[Q]`` a value for each query.
        groups: for the same queries, their values of each kind.
    """
    kinds = dict.fromkeys(kind for own in groups for kind, names in own.items() if names)
    return {
        kind: {
            value: GroupMean(score=float(values[rows].mean()), queries=len(rows))
            for value, rows in _rows_by_value(groups, kind).items()
        }
        for kind in kinds
    }


def macro_means(means: Mapping[str, Mapping[str, GroupMean]]) -> dict[str, float]:
    """The mean over the groups of each kind, whatever their sizes."""
    return {kind: float(np.mean([group["score"] for group in own.values()])) for kind, own in means.items()}


def paired(
    values_a: Array,
    values_b: Array,
    *,
    confidence: float = 0.95,
    resamples: int = 1000,
    permutations: int = 10_000,
    seed: int = 0,
) -> Paired:
    """Compare two runs on the same queries: the difference of their means, its interval, and a two-sided test.

    Args:
        values_a: ``[Q]`` a value for each query.
        values_b: ``[Q]`` of the other run, in the same order.
        confidence: see :func:`bootstrap_interval`.
        resamples: see :func:`bootstrap_interval`.
        permutations: how often signs are drawn; where there are no more ways than this to choose the signs of the
            queries that differ, each is taken once, and the p value is exact.
        seed: of all draws.

    Raises:
        InputError: no values, or another number of them on either side.
    """
    if values_a.shape != values_b.shape:
        raise InputError(
            "paired",
            expected="as many values of b as of a",
            got=f"{len(values_a)} and {len(values_b)}",
            remedy="pair them by query",
        )
    differences = values_b - values_a
    return Paired(
        difference=float(differences.mean()),
        interval=bootstrap_interval(differences, confidence=confidence, resamples=resamples, seed=seed),
        p_value=_sign_flip_test(differences[differences != 0], permutations, seed),
        wins=int((differences > 0).sum()),
        ties=int((differences == 0).sum()),
        losses=int((differences < 0).sum()),
    )


def _sign_flip_test(differences: Array, permutations: int, seed: int) -> float:
    num = len(differences)
    exact = 2**num <= permutations
    total, size = differences.sum(), np.abs(differences).sum()
    # sums that are equal on paper differ in their last bits
    least = abs(total) - 1e-12 * size
    extreme = 0
    for flipped in _all_choices(num) if exact else _random_choices(num, permutations, seed):
        extreme += int((np.abs(total - 2 * flipped @ differences) >= least).sum())
    # the observed signs are one draw more
    return extreme / 2**num if exact else (extreme + 1) / (permutations + 1)


def _all_choices(num: int) -> Iterator[Array]:
    """Every subset of ``num`` things, as rows of 0 and 1: ``[b, num]`` at a time."""
    for numbers in _blocks(2**num, num):
        yield ((np.array(numbers)[:, None] >> np.arange(num)) & 1).astype(np.float64)


def _random_choices(num: int, draws: int, seed: int) -> Iterator[Array]:
    generator = np.random.default_rng(seed)
    for block in _blocks(draws, num):
        yield generator.integers(0, 2, (len(block), num)).astype(np.float64)


def _resampled(num: int, resamples: int, seed: int) -> Iterator[Array]:
    """How often each of ``num`` queries is drawn when as many are drawn with replacement: ``[b, num]`` at a time."""
    if num == 0:
        raise InputError("values", expected="a value for at least one query", got="none", remedy="evaluate some")
    generator = np.random.default_rng(seed)
    for block in _blocks(resamples, num):
        rows = generator.integers(0, num, (len(block), num))
        cells = rows + num * np.arange(len(block))[:, None]
        yield np.bincount(cells.ravel(), minlength=cells.size).reshape(cells.shape).astype(np.float64)


def _blocks(total: int, width: int) -> Iterator[range]:
    """The numbers below ``total`` in blocks that hold about :data:`BLOCK` values of ``width`` each."""
    step = max(1, BLOCK // max(1, width))
    return (range(first, min(first + step, total)) for first in range(0, total, step))


def _middle(means: Array, confidence: float) -> tuple[float, float]:
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _rows_by_value(groups: GroupsOfQueries, kind: str) -> dict[str, list[int]]:
    """Which queries name each value of a kind."""
    rows: dict[str, list[int]] = {}
    for row, own in enumerate(groups):
        for value in dict.fromkeys(own.get(kind, ())):
            rows.setdefault(value, []).append(row)
    return rows
