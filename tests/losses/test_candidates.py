"""Masks of false negatives against loops over every pair."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmembed.losses.candidates import Candidates, class_mask, duplicate_mask


@st.composite
def batches(draw):
    """Queries of a few contents, each with a positive and up to two hard negatives of a few contents."""
    labels, owner = [], []
    for query in range(draw(st.integers(1, 6))):
        labels.append(len(owner))
        owner += [query] * draw(st.integers(1, 3))
    few = st.integers(0, 3)
    numbers = [draw(few) for _ in labels], [draw(few) for _ in owner], [draw(st.integers(-1, 1)) for _ in labels]
    return Candidates(torch.tensor(labels), torch.tensor(owner), *(torch.tensor(n) for n in numbers))


@settings(max_examples=200, deadline=None)
@given(candidates=batches())
def test_duplicates_of_the_positive_and_positives_of_equal_queries_are_masked(candidates):
    labels, owner = candidates.labels.tolist(), candidates.owner.tolist()
    queries, targets = candidates.query_keys.tolist(), candidates.target_keys.tolist()

    mask = duplicate_mask(candidates)

    for i, label in enumerate(labels):
        for j, owning in enumerate(owner):
            copy = targets[j] == targets[label]
            positive_of_equal_query = queries[owning] == queries[i] and labels[owning] == j
            assert bool(mask[i, j]) == (j != label and (copy or positive_of_equal_query))


@settings(max_examples=200, deadline=None)
@given(candidates=batches())
def test_positives_of_the_same_class_are_masked_and_hard_negatives_stay(candidates):
    labels, owner, classes = (getattr(candidates, name).tolist() for name in ("labels", "owner", "classes"))

    mask = class_mask(candidates)

    for i, label in enumerate(labels):
        for j, owning in enumerate(owner):
            same = classes[i] >= 0 and classes[i] == classes[owning]
            assert bool(mask[i, j]) == (j != label and same and labels[owning] == j)


def test_candidates_move_whole():
    numbers = [torch.tensor([0])] * 5

    moved = Candidates(*numbers).to("meta")

    assert {getattr(moved, name).device.type for name in ("labels", "owner", "query_keys", "target_keys")} == {"meta"}
