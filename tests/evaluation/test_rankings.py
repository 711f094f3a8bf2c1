import pytest
import torch

from mmembed.errors import InputError
from mmembed.evaluation.benchmark import Task
from mmembed.evaluation.rankings import Ranking, rank, read_rankings, write_rankings
from mmembed.evaluation.retrieval_set import RetrievalSet
from mmembed.items import Item

CORPUS = {name: Item.of(name) for name in ("a", "b", "c", "d")}
SET = RetrievalSet(
    queries={"q1": Item.of("one"), "q2": Item.of("two")},
    corpus=CORPUS,
    relevance={"q1": {"a": 1.0, "b": 0.0}, "q2": {"d": 2.0}},
    candidates={"q1": ["a", "c"], "q2": ["b", "d", "c"]},
)
QUERIES = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
TARGETS = torch.tensor([[0.5, 0.1], [0.5, 0.9], [0.5, 0.2], [0.1, 0.3]])


def task(**fields):
    return Task(name="toy", data="toy", metric="hit@1", **fields)


def test_shared_candidates_rank_the_corpus_and_ties_go_to_the_lower_index():
    first, second = rank(task(), SET, QUERIES, TARGETS, depth=3)

    assert first == Ranking("q1", ["a", "b", "c"], [0.5, 0.5, 0.5], {"a": 1.0}, 1)
    assert (second.targets, second.first_hit) == (["b", "d", "c"], 2)


def test_pessimistic_ties_put_the_right_target_last_among_its_equals():
    first, _ = rank(task(ties="pessimistic"), SET, QUERIES, TARGETS, depth=4)

    assert (first.targets, first.first_hit) == (["b", "c", "a", "d"], 3)


def test_local_candidates_rank_only_their_own():
    first, second = rank(task(candidates="local"), SET, QUERIES, TARGETS, depth=4)

    assert (first.targets, second.targets) == (["a", "c"], ["b", "d", "c"])


def test_a_right_target_beyond_the_depth_has_no_rank():
    assert rank(task(ties="pessimistic"), SET, QUERIES, TARGETS, depth=2)[0].first_hit is None


@pytest.mark.parametrize("seed", range(3))
def test_permuting_the_corpus_permutes_nothing_but_ties(seed):
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(4, generator=generator).tolist()
    vectors = torch.randn(4, 2, generator=generator)
    names = list(CORPUS)
    other = RetrievalSet(SET.queries, {names[i]: CORPUS[names[i]] for i in order}, SET.relevance, SET.candidates)

    assert rank(task(), other, QUERIES, vectors[order], 4) == rank(task(), SET, QUERIES, vectors, 4)


def test_a_file_of_rankings_is_read_as_it_was_written(tmp_path):
    rankings = rank(task(), SET, QUERIES, TARGETS, depth=4)

    write_rankings(tmp_path / "toy.jsonl", rankings)

    assert read_rankings(tmp_path / "toy.jsonl") == rankings


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({"candidates": "local"}, "toy.candidates: expected 'shared' for a set without candidates, got 'local'"),
        ({"reference": "removed"}, "toy.reference: expected 'kept' for a set that names no references, got 'removed'"),
    ],
)
def test_rules_about_what_a_set_does_not_bring_are_refused(rule, words):
    bare = RetrievalSet(SET.queries, SET.corpus, SET.relevance)

    with pytest.raises(InputError, match=words):
        rank(task(**rule), bare, QUERIES, TARGETS, depth=4)
