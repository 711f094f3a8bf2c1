"""What every metric must say of models that know everything, nothing, or the opposite, whoever wins ties."""

import math
from itertools import permutations

import pytest
import torch

from mmembed.errors import InputError
from mmembed.evaluation.benchmark import Task
from mmembed.evaluation.metrics import METRICS, OTHER_NAMES, chance, judge, metric_values
from mmembed.evaluation.rankings import rank
from mmembed.evaluation.retrieval_set import RetrievalSet
from mmembed.items import Item

# every ordered pair of targets is once the pair of grades 3 and 1: one fixed order then meets all placements of them
# equally often, as shuffling would
TARGETS = [f"d{i}" for i in range(6)]
GRADES = {f"q{i}": {best: 3.0, second: 1.0} for i, (best, second) in enumerate(permutations(TARGETS, 2))}
K = 2
"""As many as are relevant, so that the best value of every metric is 1."""
OUTSIDER = "outsider"

EVERY_METRIC = pytest.mark.parametrize("metric", [f"{kind}@{K}" for kind in (*METRICS, *OTHER_NAMES)])
EVERY_TIE_RULE = pytest.mark.parametrize("ties", ["index", "pessimistic"])
EVERY_POOL = pytest.mark.parametrize("candidates", ["shared", "local"])


def grade_matrix():
    """``[Q, N]`` the grade of each target."""
    return torch.tensor([[own.get(target, 0.0) for target in TARGETS] for own in GRADES.values()])


def values(scores, metric, ties, candidates):
    """The metric of each query where a model gives these scores ``[Q, N]``."""
    names = list(TARGETS)
    if candidates == "local":
        # no candidate of any query, and better than all: ranking it would spoil every metric
        names.append(OUTSIDER)
        scores = torch.cat([scores, torch.full((len(scores), 1), 100.0)], dim=1)
    # relevant targets first, where a careless tie rule would reward them
    own = {query: [*grades, *(t for t in TARGETS if t not in grades)] for query, grades in GRADES.items()}
    queries, corpus = ({name: Item.of(name) for name in side} for side in (GRADES, names))
    task = Task(name="scorer", data="scorer", metric=metric, ties=ties, candidates=candidates)
    # a query that is an axis reads its scores off the targets
    rankings = rank(task, RetrievalSet(queries, corpus, GRADES, own), torch.eye(len(queries)), scores.T, depth=K)
    return metric_values(judge([r.targets for r in rankings], list(GRADES.values()), K), metric)


def expected_by_chance(metric):
    return chance(metric, [list(grades.values()) for grades in GRADES.values()], [len(TARGETS)] * len(GRADES))


@EVERY_POOL
@EVERY_TIE_RULE
@EVERY_METRIC
def test_an_oracle_scores_one_for_every_query(metric, ties, candidates):
    assert values(grade_matrix(), metric, ties, candidates).tolist() == [1.0] * len(GRADES)


@EVERY_POOL
@EVERY_TIE_RULE
@EVERY_METRIC
def test_an_inverted_oracle_scores_nothing(metric, ties, candidates):
    assert values(-grade_matrix(), metric, ties, candidates).tolist() == [0.0] * len(GRADES)


@EVERY_POOL
@EVERY_METRIC
def test_a_constant_scores_chance_where_ties_go_by_index(metric, candidates):
    constant = values(torch.full((len(GRADES), len(TARGETS)), 0.7), metric, "index", candidates)

    assert 0 < expected_by_chance(metric) < 1
    assert constant.mean() == pytest.approx(expected_by_chance(metric), rel=1e-12)


@EVERY_POOL
@EVERY_METRIC
def test_a_constant_scores_nothing_where_ties_are_pessimistic(metric, candidates):
    constant = torch.full((len(GRADES), len(TARGETS)), 0.7)

    assert values(constant, metric, "pessimistic", candidates).tolist() == [0.0] * len(GRADES)


@EVERY_TIE_RULE
@EVERY_METRIC
def test_random_scores_are_within_three_standard_errors_of_chance(metric, ties):
    generator = torch.Generator().manual_seed(1)
    draws = [torch.rand(len(GRADES), len(TARGETS), generator=generator) for _ in range(20)]

    found = torch.cat([torch.from_numpy(values(scores, metric, ties, "shared")) for scores in draws])

    assert abs(found.mean() - expected_by_chance(metric)) <= 3 * found.std() / math.sqrt(len(found))


@pytest.mark.parametrize(("side", "called"), [("queries", "queries"), ("targets", "corpus")])
def test_embeddings_that_are_no_numbers_are_refused_in_words(side, called):
    embeddings = {"queries": torch.eye(len(GRADES)), "targets": grade_matrix().T.clone()}
    embeddings[side][2, 1] = torch.nan
    queries, corpus = ({name: Item.of(name) for name in names} for names in (GRADES, TARGETS))
    task = Task(name="scorer", data="scorer", metric="hit@1")

    with pytest.raises(InputError, match=rf"{called}: expected finite numbers, got 1 rows with NaN .* first is row 2"):
        rank(task, RetrievalSet(queries, corpus, GRADES), **embeddings, depth=K)
