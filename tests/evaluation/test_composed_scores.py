"""Composed retrieval scored as the reference code scores it, and what a row says of queries that find themselves."""

from dataclasses import replace

import pytest

from mmembed.evaluation.benchmark import Benchmark, Task
from mmembed.evaluation.metrics import mean_metrics
from mmembed.evaluation.rankings import rank, reference_first
from mmembed.evaluation.scoring import Scoring
from mmembed.evaluation.words import notes
from tests.evaluation import composed, drawn

SUBSET = Task("subset", "cirr/val", "hit@1", ks=(1, 2, 3), reference="removed", candidates="local")


def hits(task, retrieval_set, split):
    scoring = Scoring(task, retrieval_set)
    rankings = rank(task, retrieval_set, *composed.golden_vectors(retrieval_set, split), scoring.depth)
    return mean_metrics(scoring.judged(rankings), scoring.cutoffs)


def test_cirr_is_scored_as_published():
    golden = composed.of_json("golden.json")["searle"]["cirr/val"]

    whole, group = (hits(task, composed.cirr("val"), "cirr/val") for task in (composed.CIRR, SUBSET))

    assert [100 * whole[f"hit@{k}"] for k in (1, 5, 10, 50)] == [golden[f"cirr_recall_at{k}"] for k in (1, 5, 10, 50)]
    assert [100 * group[f"hit@{k}"] for k in (1, 2, 3)] == [golden[f"cirr_group_recall_at{k}"] for k in (1, 2, 3)]


def test_the_part_of_queries_that_find_themselves_first_is_counted_before_the_reference_goes():
    val = composed.cirr("val")
    golden = composed.of_json("golden.json")["searle"]["cirr/val/raw_top1_is_reference"]

    found = reference_first(composed.CIRR, val, *composed.golden_vectors(val, "cirr/val"))

    assert found == sum(golden) / len(golden) == 3 / 8


def test_a_set_that_names_no_references_has_no_such_part():
    val = composed.cirr("val")
    vectors = composed.golden_vectors(val, "cirr/val")

    assert reference_first(composed.CIRR, type(val)(val.queries, val.corpus, val.relevance), *vectors) is None


@pytest.mark.parametrize(
    ("reference", "part", "warned"), [("kept", 0.25, True), ("kept", 0.2, False), ("removed", 0.9, False)]
)
def test_a_row_that_keeps_the_reference_is_warned_of(reference, part, warned):
    benchmark = Benchmark("toy", {"val": Task("val", "val", "hit@1", reference=reference)})
    scores = drawn.scores(benchmark, {"val": drawn.row(0.5, reference_first=part)})

    found = [note for note in notes(scores, benchmark, None, {}) if note.startswith("warning: ")]

    words = "warning: queries find their own reference first, which the row keeps: 25.0 % in val"
    assert found == ([words] if warned else [])


def test_candidates_without_the_reference_have_no_such_part():
    val = composed.cirr("val")
    vectors = composed.golden_vectors(val, "cirr/val")

    assert reference_first(replace(composed.CIRR, candidates="local"), val, *vectors) is None


def test_that_queries_found_themselves_is_told_of_a_row_that_removes_the_reference_too():
    benchmark = Benchmark("toy", {"val": Task("val", "val", "hit@1", reference="removed")})
    scores = drawn.scores(benchmark, {"val": drawn.row(0.5, reference_first=0.9)})

    assert "queries find their own reference first, before it is removed: 90.0 % in val" in (
        notes(scores, benchmark, None, {})
    )


def test_rewritten_queries_are_told_beside_the_scores():
    benchmark = Benchmark("toy", {"val": Task("val", "val", "hit@1")})
    rewritten = {"val": {"fingerprint": "ab" * 32, "fallbacks": 3}}
    scores = drawn.scores(benchmark, {"val": drawn.row(0.5)}) | {"about": {"rewritten": rewritten}}

    assert "val is asked with rewritten queries, file abababababab, of whose texts 3 are the bare change" in (
        notes(scores, benchmark, None, {})
    )
