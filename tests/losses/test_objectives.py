"""The contrastive objective against loops, and its properties."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from mmembed.counters import counting
from mmembed.errors import InputError
from mmembed.losses.candidates import Candidates
from mmembed.losses.settings import Contrastive, LearnedTemperature, SourceRules


def gradients(loss, *tensors):
    return torch.autograd.grad(loss, tensors)


def same(ours, other):
    """Bit-equal losses and gradients of two objectives on the same batch."""
    return all(torch.equal(a, b) for a, b in zip(ours, other, strict=True))


def everything(objective, queries, targets, candidates):
    """Loss, loss of each query, and the gradients of the embeddings."""
    queries, targets = queries.clone().requires_grad_(), targets.clone().requires_grad_()
    loss = objective(queries, targets, candidates)
    return loss.value, loss.per_query, *gradients(loss.share, queries, targets)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_losses_gradients_and_logs_equal_loops(batches, choices, source_rules, twin, unit, data):
    candidates, chosen, rules = data.draw(batches), data.draw(choices), data.draw(source_rules)
    seed = data.draw(st.integers(0, 1000))
    queries = unit(len(candidates.query_keys), seed, dim=4).requires_grad_()
    targets = unit(len(candidates.owner), seed + 1, dim=4).requires_grad_()
    slow = twin(candidates, chosen, rules.values())

    loss = chosen.build(rules)(queries, targets, candidates)

    expected, per_query = slow.losses(queries, targets)
    assert loss.share.item() == loss.value.item() == pytest.approx(expected.item(), abs=1e-9)
    assert loss.per_query.tolist() == pytest.approx(per_query, abs=1e-9)
    assert (loss.logs["masked"], loss.logs["no_negative"]) == pytest.approx(slow.shares(queries, targets))
    for ours, theirs in zip(
        gradients(loss.share, queries, targets),
        gradients(expected + 0 * (queries.sum() + targets.sum()), queries, targets),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)


def full_matrix(queries, targets, candidates, temperature):
    """Cross-entropy over the whole matrix, duplicates masked."""
    labels = candidates.labels
    keys, own = candidates.target_keys, candidates.target_keys[labels]
    equal_query = candidates.query_keys[:, None] == candidates.query_keys[candidates.owner]
    masked = (keys == own[:, None]) | (equal_query & candidates.positive)
    masked[torch.arange(len(labels)), labels] = False
    return F.cross_entropy((queries @ targets.T / temperature).masked_fill(masked, -math.inf), labels)


def test_blocks_equal_the_full_matrix_at_a_batch_of_4096(distinct, unit):
    generator = torch.Generator().manual_seed(5)
    candidates = replace(
        distinct(4096),
        query_keys=torch.randint(4000, (4096,), generator=generator),
        target_keys=torch.randint(4000, (4096,), generator=generator),
    )
    queries, targets = unit(4096, 1).requires_grad_(), unit(4096, 2).requires_grad_()

    loss = Contrastive(temperature=0.05, block_rows=512).build()(queries, targets, candidates)

    expected = full_matrix(queries, targets, candidates, 0.05)
    torch.testing.assert_close(loss.share, expected, rtol=1e-6, atol=1e-6)
    for ours, theirs in zip(
        gradients(loss.share, queries, targets), gradients(expected, queries, targets), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("repeats", [0, 1])
@pytest.mark.parametrize(("directions", "ways"), [((1.0, 0.0), 1), ((0.5, 0.5), 2)])
def test_masks_are_built_for_rows_that_repeat_and_for_no_others(directions, ways, repeats, distinct, unit):
    candidates = distinct(64)
    # two targets of equal content
    candidates.target_keys[63 - repeats] = candidates.target_keys[63]
    objective = Contrastive(directions=directions, block_rows=16, mask_duplicates=True).build()

    with counting() as work:
        loss = objective(unit(64, 1), unit(64, 2), candidates)

    assert work["masked_rows"] == 2 * repeats * ways
    assert loss.logs["masked"] == 2 * repeats / 64**2


@pytest.mark.parametrize("directions", [(1.0, 0.0), (0.5, 0.5)])
@pytest.mark.parametrize("batch", [1024, 2048, 4096])
def test_memory_grows_with_the_batch_and_not_with_its_square(batch, directions, distinct, unit):
    kept = [0]

    def note(tensor):
        kept[0] += tensor.nbytes
        return tensor

    queries = unit(batch, 1, dtype=torch.float32).requires_grad_()
    targets = unit(batch, 2, dtype=torch.float32).requires_grad_()
    objective = Contrastive(directions=directions, block_rows=512).build()
    with counting() as work, torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        objective(queries, targets, distinct(batch))

    assert work["score_bytes_at_once"] == 512 * batch * 4
    assert work["score_bytes"] == batch * batch * 4
    # nothing of a block waits for the backward pass: some numbers and embeddings for each row do
    assert kept[0] < batch * 4 * 200


def test_autocast_does_not_lower_the_precision_of_scores(distinct, unit):
    queries, targets = unit(4, 1, dtype=torch.float32), unit(8, 2, dtype=torch.float32)
    objective = Contrastive(block_rows=2).build()
    plain = everything(objective, queries, targets, distinct(4, hard=1))

    with torch.autocast("cpu", dtype=torch.bfloat16):
        under = everything(objective, queries, targets, distinct(4, hard=1))

    assert same(plain, under)


@pytest.mark.parametrize(
    ("given_as", "computed_in"), [(torch.bfloat16, torch.float32), (torch.float32, torch.float32), (torch.float64,) * 2]
)
def test_scores_have_at_least_float32(given_as, computed_in, distinct, unit):
    loss = Contrastive().build()(unit(4, 1).to(given_as), unit(4, 2).to(given_as), distinct(4))

    assert loss.share.dtype == loss.value.dtype == loss.per_query.dtype == computed_in


def test_a_solved_query_keeps_its_small_loss(distinct):
    queries, targets = torch.eye(3), torch.eye(3)

    loss = Contrastive(temperature=0.02).build()(queries, targets, distinct(3))

    assert loss.value.item() == pytest.approx(2 * math.exp(-50), rel=1e-5)


def test_several_positives_stay_finite_at_the_lowest_temperature():
    # exp of 200 is no float32
    rows, one = torch.eye(2), torch.tensor([0, 1])
    candidates = Candidates(
        torch.tensor([0, 0, 1]),
        torch.tensor([True] * 3),
        one,
        torch.tensor([0, 1, 2]),
        torch.full((2,), -1),
        torch.zeros_like(one),
    )

    loss, _, *grads = everything(Contrastive(temperature=0.005).build(), rows, rows[[0, 0, 1]], candidates)

    assert loss == 0
    assert all(torch.isfinite(grad).all() for grad in grads)


@pytest.mark.parametrize("positives", ["log_sum", "each"])
@pytest.mark.parametrize("directions", [(1.0, 0.0), (0.5, 0.5)])
def test_queries_without_negatives_have_loss_and_gradient_zero(directions, positives, distinct, unit):
    candidates = replace(distinct(3), query_keys=torch.zeros(3, dtype=torch.long))
    learned = LearnedTemperature()
    objective = Contrastive(directions=directions, positives=positives, learn=learned, block_rows=2).build()

    loss, per_query, *grads = everything(objective, unit(3, 1), unit(3, 2), candidates)

    assert loss.item() == 0
    assert per_query.tolist() == [0, 0, 0]
    assert all(torch.equal(grad, torch.zeros_like(grad)) for grad in grads)
    assert objective(unit(3, 1), unit(3, 2), candidates).logs["no_negative"] == 1


def test_a_masked_target_has_no_gradient(distinct, unit):
    # target 2 repeats the first positive, and no other query sees a hard negative of another
    candidates = replace(distinct(2, hard=1), target_keys=torch.tensor([0, 1, 0, 3]))
    objective = Contrastive(share_negatives=False).build()

    *_, of_targets = everything(objective, unit(2, 1), unit(4, 2), candidates)

    assert torch.equal(of_targets[2], torch.zeros(8, dtype=torch.float64))
    assert of_targets[3].abs().min() > 0


def test_with_own_negatives_alone_another_row_changes_nothing(distinct, unit):
    candidates, objective = distinct(5, hard=2), Contrastive(in_batch="own").build()
    queries, targets = unit(5, 1, dtype=torch.float32), unit(15, 2, dtype=torch.float32)
    changed_queries, changed_targets = queries.clone(), targets.clone()
    changed_queries[3], changed_targets[3::5] = unit(1, 3), unit(3, 4)

    before = objective(queries, targets, candidates).per_query
    after = objective(changed_queries, changed_targets, candidates).per_query

    others = torch.tensor([0, 1, 2, 4])
    assert torch.equal(before[others], after[others])
    assert before[3] != after[3]


BASE = Contrastive(temperature=0.1, directions=(0.5, 0.5), mask_classes=True, mask_duplicates=True)
RESTATED = SourceRules(temperature=0.1, in_batch="batch", mask_classes=True)


@pytest.mark.parametrize(
    ("one", "other", "rules"),
    [
        (BASE, replace(BASE, margin=math.inf), None),
        (BASE, replace(BASE, in_batch="source"), None),
        (BASE, BASE, {"a": SourceRules(), "b": SourceRules()}),
        (BASE, BASE, {"a": RESTATED, "b": SourceRules()}),
        (BASE, BASE, {"a": RESTATED}),
        (replace(BASE, block_rows=6), replace(BASE, block_rows=1000), None),
        (BASE, replace(BASE, learn=LearnedTemperature("raw")), None),
        (BASE, replace(BASE, learn=LearnedTemperature("log")), None),
    ],
)
def test_identity_settings_are_bit_equal_to_leaving_out(one, other, rules, unit, distinct):
    candidates = replace(
        distinct(6, hard=1), query_keys=torch.tensor([0, 1, 2, 3, 0, 5]), classes=torch.tensor([0, 1, -1, 0, 1, 2])
    )
    batch = unit(6, 1, dtype=torch.float32), unit(12, 2, dtype=torch.float32), candidates

    assert same(everything(one.build(), *batch), everything(other.build(rules), *batch))


def test_masks_without_anything_to_mask_are_bit_equal_to_no_masks(unit, distinct):
    batch = unit(6, 1, dtype=torch.float32), unit(12, 2, dtype=torch.float32), distinct(6, hard=1)
    without = replace(BASE, mask_duplicates=False, mask_classes=False)

    assert same(everything(BASE.build(), *batch), everything(without.build(), *batch))
    assert BASE.build()(*batch).logs["masked"] == 0


def test_sharing_hard_negatives_where_there_are_none_is_bit_equal(unit, distinct):
    batch = unit(6, 1, dtype=torch.float32), unit(6, 2, dtype=torch.float32), distinct(6)

    assert same(everything(BASE.build(), *batch), everything(replace(BASE, share_negatives=False).build(), *batch))


def test_the_two_forms_of_several_positives_agree_on_one(unit, distinct):
    batch = unit(6, 1), unit(12, 2), distinct(6, hard=1)

    together, each = (everything(replace(BASE, positives=form).build(), *batch) for form in ("log_sum", "each"))

    for a, b in zip(together, each, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_temperatures_are_logged_by_source_where_there_are_several(unit, distinct):
    batch = unit(4, 1), unit(4, 2), distinct(4)

    one = BASE.build({"text": SourceRules(), "image": SourceRules(in_batch="own")})(*batch).logs
    several = BASE.build({"text": SourceRules(), "image": SourceRules(temperature=0.3)})(*batch).logs

    assert one == {"masked": 0, "no_negative": 0, "temperature": 0.1}
    assert several == {"masked": 0, "no_negative": 0, "temperature/text": 0.1, "temperature/image": 0.3}


def test_a_batch_without_queries_is_refused():
    none = torch.zeros(0, dtype=torch.long)
    candidates = Candidates(none, none.bool(), none, none, none, none)

    with pytest.raises(InputError, match="batch: expected at least one query, got none on any rank"):
        Contrastive().build()(torch.zeros(0, 8), torch.zeros(0, 8), candidates)
