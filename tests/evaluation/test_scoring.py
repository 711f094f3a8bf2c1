"""Scores over queries and over groups, their chance, and the published fault."""

import numpy as np
import pytest

from mmembed.errors import InputError
from mmembed.evaluation.benchmark import Task
from mmembed.evaluation.metrics import chance, mean_metrics
from mmembed.evaluation.published_fault import permuted_grades
from mmembed.evaluation.rankings import Ranking
from mmembed.evaluation.retrieval_set import RetrievalSet
from mmembed.evaluation.scoring import Scoring
from mmembed.evaluation.statistics import group_means, macro_means
from mmembed.items import Item

ASPECTS = [("a",), ("a", "b"), ("b",), ("a",), (), ("c",)]


def a_set(groups=True):
    """Six queries; the first right target of each has grade 2, the second grade 1, of ten targets."""
    names = [f"q{i}" for i in range(6)]
    return RetrievalSet(
        {name: Item.of(name) for name in names},
        {f"d{i}": Item.of(f"target {i}") for i in range(10)},
        {name: {f"d{i}": 2.0, f"d{i + 1}": 1.0, "d9": 0.0} for i, name in enumerate(names)},
        groups={name: {"aspect": own} if own else {} for name, own in zip(names, ASPECTS, strict=True)}
        if groups
        else {},
    )


def rankings_of(retrieval_set, first_ranks):
    """Rankings that hold the best target of each query at the given rank."""
    found = []
    for (query_id, grades), place in zip(retrieval_set.relevance.items(), first_ranks, strict=True):
        right = {target: grade for target, grade in grades.items() if grade > 0}
        others = [target for target in retrieval_set.corpus if target not in right]
        targets = [*others[: place - 1], *right, *others[place - 1 :]]
        found.append(Ranking(query_id, targets, [1.0] * len(targets), right, place))
    return found


def scored(first_ranks=(1, 2, 1, 4, 1, 3), **fields):
    retrieval_set = a_set(fields.pop("groups", True))
    scoring = Scoring(Task(**{"name": "t", "data": "t", "metric": "mrr@10"} | fields), retrieval_set)
    judged = scoring.judged(rankings_of(retrieval_set, first_ranks))
    return scoring, judged


def test_a_score_is_the_mean_over_queries():
    scoring, judged = scored()

    assert scoring.values(judged).tolist() == [1, 1 / 2, 1, 1 / 4, 1, 1 / 3]
    assert scoring.score(scoring.values(judged)) == pytest.approx(mean_metrics(judged, [10])["mrr@10"])
    assert scoring.chance() == pytest.approx(chance("mrr@10", [[2.0, 1.0]] * 6, [10] * 6))


def test_a_macro_score_is_the_mean_over_groups_and_so_is_its_chance():
    scoring, judged = scored(macro="aspect")
    plain, _ = scored()
    values = scoring.values(judged)

    by_hand = np.mean([np.mean([1, 1 / 2, 1 / 4]), np.mean([1 / 2, 1]), 1 / 3])
    assert scoring.score(values) == pytest.approx(by_hand)
    assert macro_means(group_means(values, scoring.groups))["aspect"] == pytest.approx(by_hand)
    low, high = scoring.interval(values)
    assert low < by_hand < high
    assert scoring.interval(values) != plain.interval(values)
    # every query has the same chance here, so the mean over groups has it too
    assert scoring.chance() == pytest.approx(plain.chance())


def test_a_kind_of_group_that_the_set_lacks_is_refused():
    with pytest.raises(
        InputError, match=r"t.macro: expected a kind of group of the set, got 'aspct'; did you mean 'asp"
    ):
        scored(macro="aspct")
    with pytest.raises(InputError, match=r"got 'aspect'; add groups.jsonl"):
        scored(macro="aspect", groups=False)


def test_grades_are_right_unless_the_published_fault_is_asked_for():
    metric = {"metric": "ndcg_linear@2"}
    right, judged = scored([1] * 6, **metric)
    assert right.score(right.values(judged)) == 1.0

    grades = [{target: grade for target, grade in own.items() if grade > 0} for own in a_set().relevance.values()]
    for seed in range(4):
        faulty, judged = scored([1] * 6, ndcg_fault_seed=seed, **metric)
        swapped = sum(own != kept for own, kept in zip(permuted_grades(grades, seed), grades, strict=True))
        # grades 2, 1 read as 1, 2
        wrong = (1 + 2 / np.log2(3)) / (2 + 1 / np.log2(3))
        assert faulty.score(faulty.values(judged)) == pytest.approx((6 - swapped + swapped * wrong) / 6)


def test_rankings_are_as_deep_as_the_deepest_cutoff_and_never_shallower_than_the_report():
    assert scored(ks=(1, 3))[0].depth == 10
    assert scored(metric="recall@50")[0].depth == 50
    assert scored(ks=(1, 3))[0].cutoffs == [1, 3, 10]
