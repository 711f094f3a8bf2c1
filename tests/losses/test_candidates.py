"""Who is who in a rank's batch."""

from dataclasses import fields, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmembed.errors import InputError


@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_labels_are_the_first_positives(batches, data):
    candidates = data.draw(batches)
    targets = list(enumerate(zip(candidates.owner.tolist(), candidates.positive.tolist(), strict=True)))

    firsts = [
        next(j for j, (owner, positive) in targets if owner == i and positive)
        for i in range(len(candidates.query_keys))
    ]
    assert candidates.labels.tolist() == firsts


def test_a_positive_before_two_negatives_is_every_third_target(distinct):
    owner = torch.arange(4).repeat_interleave(3)

    candidates = replace(distinct(4, hard=2), owner=owner, positive=torch.tensor([True, False, False] * 4))

    assert candidates.labels.tolist() == [0, 3, 6, 9]


def test_candidates_move_whole(distinct):
    moved = distinct(3, hard=1).to("meta")

    assert {getattr(moved, field.name).device.type for field in fields(moved)} == {"meta"}


def test_a_query_without_a_positive_is_refused(distinct):
    message = (
        r"candidates.positive: expected at least one positive for each query, got none for queries \[1, 2\]; leave"
    )

    with pytest.raises(InputError, match=message):
        replace(distinct(3), positive=torch.tensor([True, False, False]))


@pytest.mark.parametrize("owner", [[0, 1, 3], [-1, 1, 2]])
def test_an_owner_that_does_not_exist_is_refused(owner, distinct):
    wrong = [number for number in owner if number not in (0, 1, 2)]

    with pytest.raises(InputError, match=rf"candidates.owner: expected one of 3 queries, got \[{wrong[0]}\]; count"):
        replace(distinct(3), owner=torch.tensor(owner))


def test_a_rank_may_have_no_rows(distinct):
    assert distinct(0).labels.tolist() == []
