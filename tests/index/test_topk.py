import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmembed.counters import counting
from mmembed.errors import InputError
from mmembed.index.topk import top_k


def slow_top_k(queries, corpus, k, candidates=None, lose_ties=None, excluded=None):
    """Every score at once and a stable sort."""
    scores = (queries.double() @ corpus.double().T).float()
    values, indices = torch.full((len(queries), k), -torch.inf), torch.full((len(queries), k), -1)
    for row, own in enumerate(scores.tolist()):
        allowed = range(len(corpus)) if candidates is None else candidates[row]
        late = set() if lose_ties is None else set(lose_ties[row])
        allowed = [i for i in allowed if excluded is None or i not in excluded[row]]
        order = sorted(allowed, key=lambda i: (-own[i], i in late, i))[:k]
        values[row, : len(order)] = torch.tensor([own[i] for i in order])
        indices[row, : len(order)] = torch.tensor(order)
    return values, indices


def vectors(rows, width, seed):
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))


@given(st.integers(1, 9), st.integers(1, 40), st.integers(1, 12), st.integers(1, 17), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_blocks_equal_a_full_matrix_and_a_stable_sort(num_queries, num_targets, k, block_rows, seed):
    # few distinct values and repeated rows: many ties, also across the borders of blocks
    queries = vectors(num_queries, 3, seed).round()
    corpus = vectors(7, 3, seed + 1).round()[torch.arange(num_targets) % 7]

    scores, indices = top_k(queries, corpus, k, block_rows=block_rows)

    slow_scores, slow_indices = slow_top_k(queries, corpus, k)
    assert torch.equal(indices, slow_indices)
    assert torch.equal(scores, slow_scores)


@pytest.mark.parametrize("block_rows", [1, 7, 64, 4096])
def test_equal_vectors_of_any_width_tie_in_whatever_block_they_fall(block_rows):
    one = torch.nn.functional.normalize(vectors(1, 771, 0))
    corpus = torch.nn.functional.normalize(vectors(130, 771, 1))
    corpus[[3, 63, 64, 129]] = one

    scores, indices = top_k(one, corpus, 5, block_rows=block_rows)

    assert indices[0, :4].tolist() == [3, 63, 64, 129]
    assert scores[0, :4].unique().numel() == 1


def test_local_candidates_rank_only_those_and_count_only_their_scores():
    queries, corpus = vectors(3, 5, 2), vectors(40, 5, 3)
    candidates = [[30, 2, 7], [5], []]

    with counting() as work:
        scores, indices = top_k(queries, corpus, 3, block_rows=2, candidates=candidates)

    assert torch.equal(indices, slow_top_k(queries, corpus, 3, candidates)[1])
    assert indices[1].tolist() == [5, -1, -1]
    assert scores[2].tolist() == [-torch.inf] * 3
    assert work["score_bytes"] == 8 * 4


def test_shared_candidates_count_every_score_once():
    with counting() as work:
        top_k(vectors(5, 4, 0), vectors(11, 4, 1), 2, block_rows=3)

    assert work["score_bytes"] == 8 * 5 * 11


@pytest.mark.parametrize("local", [False, True])
def test_rows_that_lose_ties_come_after_their_equals_and_before_worse_ones(local):
    queries = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    corpus = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 0.0], [2.0, 0.0]])
    candidates = [[0, 1, 2, 3, 4]] * 2 if local else None

    _, indices = top_k(queries, corpus, 5, block_rows=2, candidates=candidates, lose_ties=[[0], [2, 4]])

    assert indices.tolist() == [[4, 2, 3, 0, 1], [4, 0, 3, 2, 1]]


def test_negative_zero_ties_with_zero():
    corpus = torch.tensor([[-0.0], [0.0], [-1.0], [-3.0]])

    _, indices = top_k(torch.tensor([[1.0], [-1.0]]), corpus, 4, block_rows=1)

    assert indices.tolist() == [[0, 1, 2, 3], [3, 2, 0, 1]]


def test_no_queries_give_empty_rankings():
    scores, indices = top_k(torch.empty(0, 4), vectors(3, 4, 0), 2, block_rows=8)

    assert scores.shape == indices.shape == (0, 2)


def broken(**changes):
    arguments = {"queries": vectors(2, 3, 0), "corpus": vectors(4, 3, 1), "k": 2, "block_rows": 8} | changes
    return lambda: top_k(arguments.pop("queries"), arguments.pop("corpus"), arguments.pop("k"), **arguments)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (broken(k=0), r"top_k.k: expected at least 1, got 0"),
        (broken(block_rows=-1), r"top_k.block_rows: expected at least 1, got -1"),
        (broken(corpus=vectors(4, 5, 1)), r"got \[2, 3\] and \[4, 5\]"),
        (broken(corpus=torch.tensor([[0.0, 1, 2], [0, torch.nan, 1]])), r"top_k.corpus: .*the first is row 1"),
        (broken(candidates=[[0]]), r"top_k.candidates: expected 2 lists, one for each query, got 1"),
        (broken(candidates=[[0], [4]]), r"top_k.candidates\[1\]: expected rows of the corpus, 0 to 3, got 4"),
        (broken(lose_ties=[[1, 1], []]), r"top_k.lose_ties\[0\]: expected each row once, got 1 repeated"),
    ],
)
def test_unusable_input_is_refused_in_words(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_what_is_held_does_not_grow_with_the_corpus():
    held = {}
    for rows in (40, 400):
        with counting() as work:
            top_k(vectors(9, 4, 0), vectors(rows, 4, 1), 3, block_rows=16, screen="off")
        held[rows] = (work["score_bytes"], work["score_bytes_at_once"])

    assert held == {40: (8 * 9 * 40, 8 * 9 * 16), 400: (8 * 9 * 400, 8 * 9 * 16)}


@given(st.integers(1, 6), st.integers(1, 30), st.integers(1, 12), st.integers(1, 17), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_what_is_excluded_is_ranked_by_nobody_else_less(num_queries, num_targets, k, block_rows, seed):
    queries, corpus = vectors(num_queries, 3, seed).round(), vectors(num_targets, 3, seed + 1).round()
    out = [sorted({(row * 7 + i) % num_targets for i in range(row % 4)}) for row in range(num_queries)]

    scores, indices = top_k(queries, corpus, k, block_rows=block_rows, excluded=out)

    slow_scores, slow_indices = slow_top_k(queries, corpus, k, excluded=out)
    assert torch.equal(indices, slow_indices)
    assert torch.equal(scores, slow_scores)


def test_what_is_excluded_leaves_local_candidates_too():
    queries, corpus = vectors(2, 5, 2), vectors(40, 5, 3)

    _, indices = top_k(queries, corpus, 3, candidates=[[30, 2, 7], [5, 6]], excluded=[[2], []])

    assert [sorted(i for i in row if i >= 0) for row in indices.tolist()] == [[7, 30], [5, 6]]


def test_excluded_rows_that_are_none_are_refused():
    with pytest.raises(InputError, match=r"top_k.excluded\[0\]: expected rows of the corpus, 0 to 39, got 40"):
        top_k(vectors(1, 5, 2), vectors(40, 5, 3), 3, excluded=[[40]])
