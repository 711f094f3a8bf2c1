"""The loss of a batch of tens of thousands: the scores it holds, by count."""

import pytest
import torch
import torch.nn.functional as F

from mmembed.counters import counting
from mmembed.losses.candidates import Candidates
from mmembed.losses.settings import Contrastive

pytestmark = pytest.mark.acceptance


def case(rows, width):
    generator = torch.Generator().manual_seed(0)
    queries, targets = (F.normalize(torch.randn(rows, width, generator=generator), dim=1) for _ in range(2))
    numbers = torch.arange(rows)
    positive, none = torch.ones(rows, dtype=torch.bool), torch.full((rows,), -1)
    return queries, targets, Candidates(numbers, positive, numbers, numbers + rows, none, torch.zeros_like(numbers))


def test_scores_held_at_32768_pairs_are_less_than_an_eighth_of_the_full_matrix():
    # forward alone, and narrow: scores are as many at any width, and the backward pass computes the same blocks again,
    # as the test below counts
    with counting() as work, torch.no_grad():
        Contrastive().build()(*case(32_768, 64))

    assert work["score_bytes"] == 4 * 32_768**2
    assert work["score_bytes_at_once"] == 4 * 32_768 * 1024
    assert work["score_bytes_at_once"] * 32 == work["score_bytes"]


def test_gradients_at_8192_pairs_are_those_of_the_full_matrix_and_hold_one_block():
    queries, targets, candidates = case(8192, 256)
    queries.requires_grad_(), targets.requires_grad_()
    plain = F.cross_entropy(queries @ targets.T / 0.05, torch.arange(8192))
    wanted = torch.autograd.grad(plain, [queries, targets])

    with counting() as work:
        loss = Contrastive(temperature=0.05).build()(queries, targets, candidates)
        found = torch.autograd.grad(loss.share, [queries, targets])

    torch.testing.assert_close(loss.value, plain.detach(), rtol=1e-6, atol=0)
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-9)
    # each block once forward and once backward
    assert work["score_bytes"] == 2 * 4 * 8192**2
    assert work["score_bytes_at_once"] * 8 == 4 * 8192**2
