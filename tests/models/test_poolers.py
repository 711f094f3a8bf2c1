"""Poolers against loops over rows."""

import pytest
import torch

from mmembed.models.poolers import LastTokenPooler, MeanTokenPooler
from mmembed.models.prompts import Kind
from mmembed.models.sequence import Hidden

LENGTHS = [4, 1, 6, 3]
IS_QUERY = [True, False, False, True]
TASK, TEXT = int(Kind.INSTRUCTION), int(Kind.TEXT)
# the last row is instruction only
KINDS = [[TASK, TASK, TEXT, TEXT], [TEXT], [TEXT, TASK, TASK, TEXT, TASK, TEXT], [TASK, TASK, TASK]]


@pytest.fixture
def hidden():
    states = torch.randn(sum(LENGTHS), 5)
    kinds = torch.tensor([k for row in KINDS for k in row], dtype=torch.uint8)
    return Hidden(states, torch.tensor(LENGTHS), kinds, torch.tensor(IS_QUERY))


def test_last_token_takes_the_end_of_each_row(hidden):
    rows = hidden.states.split(LENGTHS)

    assert torch.equal(LastTokenPooler()(hidden), torch.stack([row[-1] for row in rows]))


@pytest.mark.parametrize("drop", ["none", "query", "target", "both"])
def test_mean_leaves_out_the_instruction_of_the_sides_named(drop, hidden):
    expected = []
    for states, kinds, is_query in zip(hidden.states.split(LENGTHS), KINDS, IS_QUERY, strict=True):
        dropping = drop == "both" or drop == ("query" if is_query else "target")
        kept = [s for s, kind in zip(states, kinds, strict=True) if not (dropping and kind == TASK)]
        expected.append(torch.stack(kept or list(states)).mean(0))

    pooled = MeanTokenPooler(drop)(hidden)

    assert torch.allclose(pooled, torch.stack(expected), atol=1e-6)


def test_the_four_choices_differ(hidden):
    pooled = [MeanTokenPooler(drop)(hidden) for drop in ("none", "query", "target", "both")]

    assert all(not torch.allclose(a, b) for i, a in enumerate(pooled) for b in pooled[:i])


def test_the_mean_is_taken_in_float32(hidden):
    half = Hidden(hidden.states.bfloat16(), hidden.lengths, hidden.kinds, hidden.is_query)

    assert MeanTokenPooler("none")(half).dtype == torch.float32
