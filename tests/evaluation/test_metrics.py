import json
import math
import random
from pathlib import Path

import numpy as np
import pytest
import pytrec_eval
from hypothesis import given, settings
from hypothesis import strategies as st

from mmembed.errors import InputError
from mmembed.evaluation.metrics import METRICS, OTHER_NAMES, chance, judge, mean_metrics, metric_and_k, metric_values

GOLDEN = json.loads((Path(__file__).parents[1] / "golden/metrics/vlm2vec_ranking_metrics.json").read_text())


def published_run(cases):
    """Rankings and grades of the published cases."""
    rankings, relevance = [], []
    for case in cases:
        labels = case["label"] if isinstance(case["label"], list) else [case["label"]]
        grades = case["rel_scores"] or [1.0] * len(labels)
        rankings.append(case["prediction"])
        relevance.append(dict(zip(labels, grades, strict=True)))
    return rankings, relevance


@pytest.mark.parametrize("group", ["single_label", "multi_label", "empty_and_dup", "few_candidates"])
@pytest.mark.parametrize("cutoffs", ["1,5,10", "1,2,3,20"])
def test_metrics_equal_the_published_evaluation(group, cutoffs):
    ks = [int(k) for k in cutoffs.split(",")]

    ours = mean_metrics(judge(*published_run(GOLDEN[group]["cases"]), max(ks)), ks)

    theirs = GOLDEN[group]["outputs"][cutoffs]
    # summation order differs, by a few units in the last place
    assert {name: ours[name] for name in theirs} == pytest.approx(theirs, rel=1e-14, abs=1e-15)


def test_graded_ndcg_equals_the_intended_value_not_the_scrambled_one():
    graded = GOLDEN["graded"]

    ours = mean_metrics(judge(*published_run(graded["cases"]), 10), [1, 5, 10])

    intended = {f"ndcg_{name}": value for name, value in graded["intended_ndcg_without_set_scramble"].items()}
    assert {name: ours[name] for name in intended} == pytest.approx(intended, rel=1e-14)
    assert ours["ndcg_linear@10"] != pytest.approx(graded["evaluate_output_this_hash_seed"]["ndcg_linear@10"])


def twin(kind, ranking, grades, k):
    """A metric of one query as its formula is written down."""
    relevant = {target: grade for target, grade in grades.items() if grade > 0}
    right = [target in relevant for target in ranking[:k]]
    precision_at = [sum(right[: i + 1]) / (i + 1) for i in range(len(right))]
    summed = sum(p for p, is_right in zip(precision_at, right, strict=True) if is_right)
    precision, recall = sum(right) / k, sum(right) / len(relevant) if relevant else 1.0
    gain = {
        "ndcg_linear": lambda grade: grade,
        "ndcg_exponential": lambda grade: 2**grade - 1,
        "ndcg_binary": lambda grade: 1.0,
    }
    if kind in gain:
        best = sum(g / math.log2(i + 2) for i, g in enumerate(sorted(map(gain[kind], relevant.values()))[::-1][:k]))
        found = sum(gain[kind](relevant[t]) / math.log2(i + 2) for i, t in enumerate(ranking[:k]) if t in relevant)
        return found / best if relevant else 0.0
    return {
        "hit": float(any(right)),
        "best_hit": float(any(grades.get(t, 0) == max(relevant.values(), default=-1) for t in ranking[:k])),
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / (precision + recall) if any(right) else 0.0,
        "map": summed / min(k, len(relevant)) if relevant else 0.0,
        "map_all": summed / len(relevant) if relevant else 0.0,
        "mrr": max((1 / (i + 1) for i, is_right in enumerate(right) if is_right), default=0.0),
    }[OTHER_NAMES.get(kind, kind)]


TARGETS = [f"d{i}" for i in range(8)]
# targets beyond the fifth may be relevant and not ranked
RANKINGS = st.lists(st.sampled_from(TARGETS[:5]), min_size=1, unique=True)
JUDGEMENTS = st.dictionaries(st.sampled_from(TARGETS), st.sampled_from([0.0, 0.5, 1.0, 2.0, 3.0]))


@pytest.mark.parametrize("kind", [*METRICS, *OTHER_NAMES])
@given(st.lists(st.tuples(RANKINGS, JUDGEMENTS), min_size=1, max_size=6), st.integers(1, 7))
@settings(max_examples=60, deadline=None)
def test_a_metric_equals_its_slow_twin(kind, queries, k):
    rankings, relevance = zip(*queries, strict=True)

    ours = metric_values(judge(rankings, relevance, 7), f"{kind}@{k}")

    expected = [twin(kind, ranking, grades, k) for ranking, grades in queries]
    assert ours.tolist() == pytest.approx(expected, rel=1e-12)


def random_run(seed, num_queries=25, num_targets=30):
    chooser = random.Random(seed)
    targets = [f"d{i}" for i in range(num_targets)]
    rankings = [chooser.sample(targets, num_targets) for _ in range(num_queries)]
    relevance = [
        {target: chooser.randint(1, 3) for target in chooser.sample(targets, chooser.randint(1, 8))} for _ in rankings
    ]
    return rankings, relevance


TREC = {
    "ndcg_linear": "ndcg_cut",
    "precision": "P",
    "recall": "recall",
    "hit": "success",
    "success": "success",
    "map_all": "map_cut",
}


def trec(rankings, relevance, *asked):
    """pytrec_eval's measures of each query; ties are ordered by id there, so it gets one over the rank as the score."""
    run = {str(q): {t: 1 / (r + 1) for r, t in enumerate(ranking)} for q, ranking in enumerate(rankings)}
    measured = pytrec_eval.RelevanceEvaluator({str(q): own for q, own in enumerate(relevance)}, asked).evaluate(run)
    return [measured[str(q)] for q in range(len(rankings))]


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("k", [1, 5, 10])
@pytest.mark.parametrize("kind", TREC)
def test_a_metric_equals_pytrec_eval(kind, k, seed):
    rankings, relevance = random_run(seed)

    ours = metric_values(judge(rankings, relevance, 30), f"{kind}@{k}")

    theirs = trec(rankings, relevance, f"{TREC[kind]}.{k}")
    assert ours.tolist() == pytest.approx([query[f"{TREC[kind]}_{k}"] for query in theirs], abs=1e-12)


@pytest.mark.parametrize("seed", [0, 1])
def test_metrics_of_whole_rankings_and_without_grades_equal_pytrec_eval(seed):
    rankings, relevance = random_run(seed)
    judged = judge(rankings, relevance, 30)

    whole = trec(rankings, relevance, "recip_rank", "map")
    binary = trec(rankings, [dict.fromkeys(grades, 1) for grades in relevance], "ndcg_cut.5")

    for kind, theirs in (("mrr@30", "recip_rank"), ("map@30", "map"), ("map_all@30", "map")):
        assert metric_values(judged, kind).tolist() == pytest.approx([q[theirs] for q in whole], abs=1e-12)
    assert metric_values(judged, "ndcg_binary@5").tolist() == pytest.approx(
        [query["ndcg_cut_5"] for query in binary], abs=1e-12
    )


@given(st.permutations(range(12)), st.sets(st.integers(0, 11), min_size=1), st.integers(1, 15))
@settings(max_examples=60, deadline=None)
def test_every_metric_stays_in_its_range_and_the_ideal_ranking_is_best(order, relevant, k):
    relevance = [{str(target): 1.0 + target % 3 for target in relevant}]
    ideal = sorted(map(str, order), key=lambda target: -relevance[0].get(target, 0.0))
    ours, best = (judge([ranking], relevance, k) for ranking in ([str(i) for i in order], ideal))

    for metric in METRICS.values():
        assert 0.0 <= metric(ours, k)[0] <= metric(best, k)[0] <= 1.0 + 1e-12


def test_an_unranked_place_gains_nothing():
    judged = judge([["a"]], [{"b": 1.0, "a": 2.0}], depth=5)

    assert judged.gains.tolist() == [[2.0, 0, 0, 0, 0]]
    assert METRICS["precision"](judged, 5).tolist() == [0.2]


GRADES = [1.0, 3.0, 2.0, 1.0]


@pytest.mark.parametrize("kind", [*METRICS, *OTHER_NAMES])
@pytest.mark.parametrize(
    ("n", "num_relevant", "k"), [(9, 1, 1), (9, 1, 4), (12, 4, 3), (6, 3, 10), (1, 1, 1), (5, 5, 2)]
)
def test_chance_is_what_shuffled_candidates_score_on_average(kind, n, num_relevant, k):
    generator = np.random.default_rng(n * 100 + k)
    targets = [str(i) for i in range(n)]
    grades = dict(zip(targets, GRADES[:num_relevant] + [1.0] * (num_relevant - 4), strict=False))
    draws = 3000
    rankings = [[targets[i] for i in generator.permutation(n)] for _ in range(draws)]

    simulated = metric_values(judge(rankings, [grades] * draws, k), f"{kind}@{k}")

    sigma = simulated.std() / math.sqrt(draws)
    expected = chance(f"{kind}@{k}", [list(grades.values())], [n])
    assert abs(simulated.mean() - expected) <= 3 * sigma + 1e-12


def test_chance_averages_over_queries_of_different_sizes():
    assert chance("hit@1", [[1.0], [1.0, 1.0]], [10, 4]) == pytest.approx((0.1 + 0.5) / 2)


def test_names_of_other_benchmarks_are_listed_only_where_they_are_asked_for():
    judged = judge([["a", "b"]], [{"b": 1.0}], depth=2)

    listed, asked = mean_metrics(judged, [1, 2]), mean_metrics(judged, [1, 2], also=["success@2", "hit@1"])

    assert listed.keys() == {f"{kind}@{k}" for kind in METRICS for k in (1, 2)}
    assert asked == listed | {"success@2": 1.0}


def test_an_unknown_metric_names_the_nearest():
    with pytest.raises(InputError, match=r"got 'ndcg_liner@5'; did you mean 'ndcg_linear'\?"):
        metric_and_k("ndcg_liner@5")
    with pytest.raises(InputError, match=r"got 'sucess@5'; did you mean 'success'\?"):
        metric_and_k("sucess@5")


@pytest.mark.parametrize("name", ["hit", "hit@0", "hit@x"])
def test_a_metric_without_a_cutoff_is_refused(name):
    with pytest.raises(InputError, match=f"hit@k with k of at least 1, got '{name}'"):
        metric_and_k(name)


def test_a_cutoff_beyond_what_was_judged_is_refused():
    with pytest.raises(InputError, match="@5: expected k of at most 3, the depth judged, got 5"):
        mean_metrics(judge([["a"]], [{"a": 1.0}], depth=3), [1, 5])


def test_a_graded_ranking_worked_out_by_hand():
    found = mean_metrics(judge([["b", "a"]], [{"a": 2.0, "b": 1.0}], 5), [5])

    assert found["ndcg_linear@5"] == pytest.approx((1 + 2 / math.log2(3)) / (2 + 1 / math.log2(3)))
    assert found["ndcg_linear@5"] == pytest.approx(0.8597, abs=5e-5)
