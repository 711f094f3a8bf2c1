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
from mmembed.evaluation.metrics import METRICS, chance, judge, mean_metrics, metric_and_k

GOLDEN = json.loads((Path(__file__).parents[1] / "golden/metrics/vlm2vec_ranking_metrics.json").read_text())


def judged_cases(cases, depth):
    rankings, relevance = [], []
    for case in cases:
        labels = case["label"] if isinstance(case["label"], list) else [case["label"]]
        grades = case["rel_scores"] or [1.0] * len(labels)
        rankings.append(case["prediction"])
        relevance.append(dict(zip(labels, grades, strict=True)))
    return judge(rankings, relevance, depth)


@pytest.mark.parametrize("group", ["single_label", "multi_label", "empty_and_dup", "few_candidates"])
@pytest.mark.parametrize("cutoffs", ["1,5,10", "1,2,3,20"])
def test_metrics_equal_the_published_evaluation(group, cutoffs):
    ks = [int(k) for k in cutoffs.split(",")]

    ours = mean_metrics(judged_cases(GOLDEN[group]["cases"], max(ks)), ks)

    # summation order differs, by a few units in the last place
    assert ours == pytest.approx(GOLDEN[group]["outputs"][cutoffs], rel=1e-14, abs=1e-15)


def test_graded_ndcg_equals_the_intended_value_not_the_scrambled_one():
    graded = GOLDEN["graded"]

    ours = mean_metrics(judged_cases(graded["cases"], 10), [1, 5, 10])

    intended = {f"ndcg_{name}": value for name, value in graded["intended_ndcg_without_set_scramble"].items()}
    assert {name: ours[name] for name in intended} == pytest.approx(intended, rel=1e-14)
    assert ours["ndcg_linear@10"] != pytest.approx(graded["evaluate_output_this_hash_seed"]["ndcg_linear@10"])


def random_run(seed, num_queries=25, num_targets=30):
    chooser = random.Random(seed)
    targets = [f"d{i}" for i in range(num_targets)]
    rankings = [chooser.sample(targets, num_targets) for _ in range(num_queries)]
    relevance = [
        {target: chooser.randint(1, 3) for target in chooser.sample(targets, chooser.randint(1, 8))} for _ in rankings
    ]
    return rankings, relevance


@pytest.mark.parametrize("seed", [0, 1])
def test_metrics_equal_pytrec_eval(seed):
    rankings, relevance = random_run(seed)
    # ties are ordered by id there, so it gets one over our rank as the score
    run = {str(q): {t: 1 / (r + 1) for r, t in enumerate(ranking)} for q, ranking in enumerate(rankings)}
    qrels = {str(q): grades for q, grades in enumerate(relevance)}
    asked = {"ndcg_cut.1,5,10", "P.1,5,10", "recall.1,5,10", "success.1,5,10", "recip_rank", "map"}
    theirs = pytrec_eval.RelevanceEvaluator(qrels, asked).evaluate(run)

    judged = judge(rankings, relevance, 30)

    pairs = {"ndcg_linear": "ndcg_cut", "precision": "P", "recall": "recall", "hit": "success"}
    for k in (1, 5, 10):
        for ours, name in pairs.items():
            expected = [theirs[str(q)][f"{name}_{k}"] for q in range(len(rankings))]
            assert METRICS[ours](judged, k).tolist() == pytest.approx(expected, abs=1e-12)
    whole = {"mrr": "recip_rank", "map": "map"}
    for ours, name in whole.items():
        expected = [theirs[str(q)][name] for q in range(len(rankings))]
        assert METRICS[ours](judged, 30).tolist() == pytest.approx(expected, abs=1e-12)


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


@pytest.mark.parametrize("kind", METRICS)
@pytest.mark.parametrize(
    ("n", "num_relevant", "k"), [(9, 1, 1), (9, 1, 4), (12, 4, 3), (6, 3, 10), (1, 1, 1), (5, 5, 2)]
)
def test_chance_is_what_shuffled_candidates_score_on_average(kind, n, num_relevant, k):
    generator = np.random.default_rng(n * 100 + k)
    targets = [str(i) for i in range(n)]
    grades = dict(zip(targets, GRADES[:num_relevant] + [1.0] * (num_relevant - 4), strict=False))
    draws = 3000
    rankings = [[targets[i] for i in generator.permutation(n)] for _ in range(draws)]

    simulated = METRICS[kind](judge(rankings, [grades] * draws, k), k)

    sigma = simulated.std() / math.sqrt(draws)
    expected = chance(f"{kind}@{k}", [list(grades.values())], [n])
    assert abs(simulated.mean() - expected) <= 3 * sigma + 1e-12


def test_chance_averages_over_queries_of_different_sizes():
    assert chance("hit@1", [[1.0], [1.0, 1.0]], [10, 4]) == pytest.approx((0.1 + 0.5) / 2)


def test_an_unknown_metric_names_the_nearest():
    with pytest.raises(InputError, match=r"got 'ndcg_liner@5'; did you mean 'ndcg_linear'\?"):
        metric_and_k("ndcg_liner@5")


@pytest.mark.parametrize("name", ["hit", "hit@0", "hit@x"])
def test_a_metric_without_a_cutoff_is_refused(name):
    with pytest.raises(InputError, match=f"hit@k with k of at least 1, got '{name}'"):
        metric_and_k(name)


def test_a_cutoff_beyond_what_was_judged_is_refused():
    with pytest.raises(InputError, match="ks: expected at most 3, the depth judged, got 5"):
        mean_metrics(judge([["a"]], [{"a": 1.0}], depth=3), [1, 5])
