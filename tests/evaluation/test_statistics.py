import itertools

import numpy as np
import pytest
from scipy import stats  # pytrec_eval brings it

from mmembed.errors import InputError
from mmembed.evaluation import statistics
from mmembed.evaluation.statistics import (
    bootstrap_interval,
    cluster_interval,
    group_means,
    macro_interval,
    macro_means,
    paired,
)

GROUPS = [
    {"category": ("dress",), "aspect": ("addition", "negation")},
    {"category": ("shirt",), "aspect": ("negation", "negation")},
    {"category": ("dress",), "aspect": ()},
    {"category": ("dress",)},
]
VALUES = np.array([1.0, 0.5, 0.0, 0.5])


def draw(seed, num):
    return np.random.default_rng(seed).random(num)


@pytest.mark.parametrize("num", [2, 40, 3001])
@pytest.mark.parametrize("confidence", [0.95, 0.8])
def test_the_interval_is_that_of_scipy(num, confidence):
    values = draw(1, num)

    ours = bootstrap_interval(values, confidence=confidence, resamples=500, seed=3)

    asked = {"n_resamples": 500, "confidence_level": confidence, "method": "percentile"}
    theirs = stats.bootstrap((values,), np.mean, **asked, rng=np.random.default_rng(3)).confidence_interval
    assert ours == pytest.approx(tuple(theirs), rel=1e-12)


def test_blocks_bound_the_memory_and_change_nothing(monkeypatch):
    a, b = draw(1, 60), draw(2, 60)
    whole = bootstrap_interval(a), paired(a, b), paired(a[:9], b[:9]), macro_interval(VALUES, GROUPS, "aspect")

    monkeypatch.setattr(statistics, "BLOCK", 100)

    blocks = bootstrap_interval(a), paired(a, b), paired(a[:9], b[:9]), macro_interval(VALUES, GROUPS, "aspect")
    assert blocks == whole


def test_a_seed_decides_the_interval_and_the_drawn_signs():
    a, b = draw(1, 60), draw(2, 60)

    assert bootstrap_interval(a) == bootstrap_interval(a, seed=0) != bootstrap_interval(a, seed=1)
    assert paired(a, b) == paired(a, b, seed=0)
    assert paired(a, b).p_value != paired(a, b, seed=1).p_value


def test_an_interval_holds_the_true_mean_about_as_often_as_it_says():
    generator = np.random.default_rng(0)
    runs, truth = 400, 0.3

    intervals = [bootstrap_interval((generator.random(80) < truth).astype(float), resamples=300) for _ in range(runs)]

    held = sum(low <= truth <= high for low, high in intervals) / runs
    # three standard errors, and the percentile bootstrap holds a little less than it says
    assert 0.90 <= held <= 0.98


@pytest.mark.parametrize("num", [1, 7])
def test_an_interval_of_equal_values_is_that_value(num):
    assert bootstrap_interval(np.full(num, 0.25)) == (0.25, 0.25)


def test_no_values_are_refused():
    with pytest.raises(InputError, match="values: expected a value for at least one query, got none"):
        bootstrap_interval(np.array([]))


def test_the_interval_of_clusters_equals_its_slow_twin():
    generator = np.random.default_rng(5)
    values = generator.integers(0, 2, 40).astype(float)
    clusters = [f"picture {number}" for number in generator.integers(0, 9, 40)]
    names = list(dict.fromkeys(clusters))
    rows = {name: [i for i, cluster in enumerate(clusters) if cluster == name] for name in names}
    draws = np.random.default_rng(3).integers(0, len(names), (200, len(names)))

    means = [np.mean([values[i] for number in drawn for i in rows[names[number]]]) for drawn in draws]

    low, high = np.quantile(means, [0.025, 0.975])
    assert cluster_interval(values, clusters, resamples=200, seed=3) == pytest.approx((low, high))


def test_queries_that_agree_within_clusters_are_less_sure_than_they_seem():
    values = np.repeat([0.0, 1.0] * 10, 10)
    clusters = [number // 10 for number in range(200)]

    (low, high), (low_each, high_each) = cluster_interval(values, clusters), bootstrap_interval(values)

    assert high - low > 2 * (high_each - low_each)
    assert cluster_interval(values, range(200)) == (low_each, high_each)


def test_a_query_counts_in_each_of_its_groups_and_not_where_it_has_none():
    means = group_means(VALUES, GROUPS)

    assert means == {
        "category": {"dress": {"score": 0.5, "queries": 3}, "shirt": {"score": 0.5, "queries": 1}},
        "aspect": {"addition": {"score": 1.0, "queries": 1}, "negation": {"score": 0.75, "queries": 2}},
    }


def test_a_macro_mean_weighs_groups_alike_whatever_their_sizes():
    means = group_means(np.array([1.0, 0.0, 0.0, 0.0]), [{"kind": ("one",)}, *[{"kind": ("three",)}] * 3])

    assert macro_means(means) == {"kind": 0.5}


def test_queries_without_groups_have_no_means():
    assert macro_means(group_means(VALUES, [{}] * 4)) == group_means(VALUES, [{"kind": ()}] * 4) == {}


def slow_macro_interval(values, groups, kind, resamples, seed):
    """Query by query; draws as the bootstrap does."""
    kept = [(value, own[kind]) for value, own in zip(values, groups, strict=True) if own.get(kind)]
    generator = np.random.default_rng(seed)
    means = []
    for rows in generator.integers(0, len(kept), (resamples, len(kept))):
        found = {}
        for row in rows:
            for name in kept[row][1]:
                found.setdefault(name, []).append(kept[row][0])
        means.append(np.mean([np.mean(own) for own in found.values()]))
    return tuple(np.quantile(means, [0.025, 0.975]))


@pytest.mark.parametrize("num", [4, 30])
def test_the_interval_of_a_macro_mean_equals_its_slow_twin(num):
    generator = np.random.default_rng(num)
    groups = [{"k": tuple(str(i) for i in range(4) if generator.random() < 0.4)} for _ in range(num)]
    values = draw(5, num)

    ours = macro_interval(values, groups, "k", resamples=200, seed=2)

    assert ours == pytest.approx(slow_macro_interval(values, groups, "k", 200, 2), rel=1e-12)


def test_with_one_group_the_macro_interval_is_that_of_the_mean():
    values = draw(1, 20)

    assert macro_interval(values, [{"k": ("all",)}] * 20, "k") == pytest.approx(bootstrap_interval(values), rel=1e-12)


def test_a_kind_that_no_query_has_is_refused():
    with pytest.raises(InputError, match="queries with a value of the kind, got 'aspects'; did you mean 'aspect'"):
        macro_interval(VALUES, GROUPS, "aspects")


def mean_of_b_less_a(a, b, axis):
    return np.mean(b - a, axis=axis)


@pytest.mark.parametrize("num", [2, 5, 8, 13])
@pytest.mark.parametrize("seed", range(4))
def test_the_p_value_of_few_queries_is_the_exact_one_of_scipy(num, seed):
    generator = np.random.default_rng(seed)
    a, b = generator.integers(0, 4, num) / 3, generator.integers(0, 5, num) / 3

    theirs = stats.permutation_test(
        (a, b), mean_of_b_less_a, permutation_type="samples", vectorized=True, n_resamples=np.inf
    )

    assert paired(a, b).p_value == pytest.approx(theirs.pvalue, rel=1e-12)


def test_the_p_value_counts_signs_as_a_plain_loop_does():
    a, b = draw(1, 10), draw(2, 10) + 0.2
    differences = b - a

    totals = [np.dot(signs, differences) for signs in itertools.product((1, -1), repeat=10)]

    extreme = np.mean([abs(total) >= abs(differences.sum()) - 1e-12 for total in totals])
    assert 0 < extreme < 1
    assert paired(a, b).p_value == extreme


def test_the_p_value_of_many_queries_is_drawn_near_the_exact_one():
    a, b = draw(1, 16), draw(2, 16) + 0.15

    exact = paired(a, b, permutations=2**16).p_value

    drawn = paired(a, b, permutations=2**16 - 1).p_value
    assert exact * 2**16 == round(exact * 2**16)
    assert drawn != exact
    assert abs(drawn - exact) <= 3 * np.sqrt(exact * (1 - exact) / 2**16)


def test_drawn_signs_never_give_a_p_value_of_zero():
    assert paired(draw(1, 100), draw(1, 100) + 1, permutations=99).p_value == 1 / 100


def test_queries_that_tie_change_no_p_value():
    a, b = draw(1, 8), draw(2, 8)
    equal = draw(3, 500)

    longer = paired(np.concatenate([a, equal]), np.concatenate([b, equal]))

    assert longer.p_value == paired(a, b).p_value
    assert longer.ties == 500


def test_a_pair_of_runs_is_compared_by_query():
    change = paired(np.array([0.0, 1.0, 0.5, 0.5]), np.array([1.0, 0.5, 0.5, 1.0]))

    assert change.difference == pytest.approx(0.25)
    assert (change.wins, change.ties, change.losses) == (2, 1, 1)
    assert change.interval == bootstrap_interval(np.array([1.0, -0.5, 0.0, 0.5]))


def test_runs_without_a_difference_are_as_chance_has_them():
    change = paired(VALUES, VALUES)

    assert (change.difference, change.interval, change.p_value) == (0.0, (0.0, 0.0), 1.0)


def test_other_numbers_of_values_are_refused():
    with pytest.raises(InputError, match="as many values of b as of a, got 4 and 3; pair them by query"):
        paired(VALUES, VALUES[:3])
