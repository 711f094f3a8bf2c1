"""Scorers of composed retrieval whose score is known: one that knows, its opposite, chance, a copy of the reference."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mmembed.evaluation.metrics import metric_values
from mmembed.evaluation.retrieval_set import RetrievalSet
from mmembed.evaluation.scoring import Scoring
from mmembed.items import Item
from tests.data_prep.composed_copies import SOURCES
from tests.evaluation.cir_goldens import (
    BENCHMARKS,
    GOLDEN,
    VECTORS,
    judged,
    near,
    opened,
    percents,
)

ALL_ROWS = [(name, row) for name in SOURCES for row in BENCHMARKS[name].tasks]


def knowing(made, sign):
    """Vectors of a scorer that knows the grades of each query, or of its opposite."""
    names, targets = list(made.corpus), torch.eye(len(made.corpus))
    return sign * torch.tensor([[own.get(name, 0.0) for name in names] for own in made.relevance.values()]), targets


@pytest.mark.parametrize(("benchmark", "row"), ALL_ROWS)
def test_a_scorer_that_knows_gets_everything_and_its_opposite_and_one_that_scores_all_alike_nothing(
    cir_data, benchmark, row
):
    task, made = opened(cir_data, benchmark, row)
    alike = torch.ones(len(made.queries), 3), torch.ones(len(made.corpus), 3)
    names = [f"{metric}@{k}" for metric in ("hit", "map", "best_hit") for k in task.ks]

    for vectors, expected in ((knowing(made, 1.0), 1.0), (knowing(made, -1.0), 0.0), (alike, 0.0)):
        found = judged(task, made, *vectors)
        assert {name: float(metric_values(found, name).mean()) for name in names} == dict.fromkeys(names, expected)


def test_the_published_code_of_genecis_gives_a_constant_model_everything():
    assert GOLDEN["genecis"]["TRAP_constant_model"]["R@1"] == 100.0


def drawn(candidates, seed, queries=200, targets=60):
    """A set drawn by a seed: a right target for each query, and a reference that is none of its candidates."""
    draws = np.random.default_rng(seed)
    picked = [draws.permutation(targets)[: (candidates or 1) + 1].tolist() for _ in range(queries)]
    own = {f"q{i}": [f"d{number}" for number in numbers] for i, numbers in enumerate(picked)}
    return RetrievalSet(
        queries={query: Item.of(query) for query in own},
        corpus={f"d{number}": Item.of(f"d{number}") for number in range(targets)},
        relevance={query: {names[0]: 1.0} for query, names in own.items()},
        candidates={query: names[:-1] for query, names in own.items()} if candidates else None,
        references={query: names[-1:] for query, names in own.items()},
    )


@pytest.mark.parametrize(
    ("benchmark", "row", "candidates", "expected"),
    [
        ("cirr", "val_subset", 5, {1: 20, 2: 40, 3: 60}),
        ("genecis", "focus_object", 15, {1: 100 / 15, 2: 200 / 15, 3: 20}),
        ("genecis", "focus_attribute", 10, {1: 10, 2: 20, 3: 30}),
        # without the reference, 59 of 60
        ("cirr", "val", None, {1: 100 / 59, 5: 500 / 59, 10: 1000 / 59, 50: 5000 / 59}),
        ("fashioniq", "dress", None, {10: 1000 / 60, 50: 5000 / 60}),
    ],
)
def test_a_random_scorer_gets_what_chance_says(benchmark, row, candidates, expected):
    task = BENCHMARKS[benchmark].tasks[row]
    found = []
    for seed in range(5):
        made, draws = drawn(candidates, seed), torch.Generator().manual_seed(seed)
        queries = torch.randn(len(made.queries), 24, generator=draws)
        targets = torch.randn(len(made.corpus), 24, generator=draws)
        found.append(percents(task, judged(task, made, queries, targets)))

    means = {k: np.mean([one[k] for one in found]) for k in expected}

    # 1000 queries: three standard errors
    assert means == {k: pytest.approx(value, abs=3 * (value * (100 - value) / 1000) ** 0.5)
                     for k, value in expected.items()}  # fmt: skip
    scoring = Scoring(task, made)
    assert 100 * scoring.chance() == pytest.approx(next(iter(expected.values())), rel=0.02)


def test_a_scorer_that_copies_the_reference_is_not_moved_by_removing_it(cir_data):
    task, made = opened(cir_data, "cirr", "val")
    targets = VECTORS.targets(made)
    names = list(made.corpus)
    copied = torch.stack([targets[names.index(own[0])] for own in made.references.values()])
    kept = replace(task, reference="kept")

    removed = judged(task, made, copied, targets)

    assert percents(kept, judged(kept, made, copied, targets))[1] == 0.0
    others = targets.clone()
    by_hand = []
    for query, vector, (reference,) in zip(made.queries, copied, made.references.values(), strict=True):
        scores = others @ vector
        scores[names.index(reference)] = -2.0
        by_hand.append(names[int(scores.argmax())] in made.relevance[query])
    assert percents(task, removed)[1] == near(100 * np.mean(by_hand))
