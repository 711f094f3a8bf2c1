"""The contrastive objective against loops over queries and targets."""

import math

import pytest
import torch
import torch.nn.functional as F

from mmembed.errors import InputError
from mmembed.losses.candidates import Candidates
from mmembed.losses.objectives import ContrastiveObjective, infonce
from mmembed.losses.settings import Contrastive, ObjectiveSettings

TEMPERATURE = 0.1


def unit(rows, seed):
    return F.normalize(torch.randn(rows, 8, generator=torch.Generator().manual_seed(seed)), dim=-1)


@pytest.fixture
def queries():
    return unit(4, 1)


@pytest.fixture
def targets():
    return unit(9, 2)


@pytest.fixture
def candidates():
    """Four queries with one to three targets each; target 3 repeats the content of the first positive."""
    return Candidates(
        labels=torch.tensor([0, 2, 5, 6]),
        owner=torch.tensor([0, 0, 1, 1, 1, 2, 3, 3, 3]),
        query_keys=torch.tensor([10, 11, 12, 10]),
        target_keys=torch.tensor([1, 2, 3, 1, 5, 6, 7, 8, 9]),
        classes=torch.tensor([0, 1, 0, -1]),
    )


def looped(queries, targets, labels, masked=None):
    """InfoNCE written out: minus the log of the positive's share."""
    losses = []
    for i, query in enumerate(queries.double()):
        weights = [
            math.exp(float(query @ target) / TEMPERATURE) if masked is None or not masked[i][j] else 0.0
            for j, target in enumerate(targets.double())
        ]
        losses.append(-math.log(weights[labels[i]] / sum(weights)))
    return losses


def test_infonce_equals_loops(queries, targets):
    labels = torch.tensor([3, 0, 8, 3])

    losses = infonce(queries, targets, labels, TEMPERATURE)

    assert losses.tolist() == pytest.approx(looped(queries, targets, labels), abs=1e-5)


def test_masked_targets_leave_the_comparison(queries, targets):
    labels = torch.tensor([3, 0, 8, 3])
    masked = torch.rand(4, 9, generator=torch.Generator().manual_seed(3)) < 0.4
    masked[torch.arange(4), labels] = False

    losses = infonce(queries, targets, labels, TEMPERATURE, masked)

    assert losses.tolist() == pytest.approx(looped(queries, targets, labels, masked), abs=1e-5)


def test_the_order_of_targets_does_not_matter(queries, targets):
    labels = torch.tensor([3, 0, 8, 3])
    order = torch.randperm(9)

    shuffled = infonce(queries, targets[order], order.argsort()[labels], TEMPERATURE)

    assert torch.allclose(shuffled, infonce(queries, targets, labels, TEMPERATURE), atol=1e-6)


def test_autocast_does_not_lower_the_precision_of_scores(queries, targets):
    labels = torch.tensor([3, 0, 8, 3])

    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = infonce(queries, targets, labels, 0.02)

    assert losses.dtype == torch.float32
    assert torch.equal(losses, infonce(queries, targets, labels, 0.02))


@pytest.mark.parametrize("labels", [[0, 1, 2, 9], [0, -1, 2, 3], [0, 1, 2]])
def test_labels_outside_the_targets_are_refused(labels, queries, targets):
    with pytest.raises(ValueError, match=r"labels: expected 4 rows of 9 targets, got \[0, "):
        infonce(queries, targets, torch.tensor(labels), TEMPERATURE)


def test_a_masked_label_is_refused(queries, targets):
    masked = torch.zeros(4, 9, dtype=torch.bool)
    masked[2, 5] = True

    with pytest.raises(ValueError, match="masked: expected no query's own positive, got at least one"):
        infonce(queries, targets, torch.tensor([0, 2, 5, 6]), TEMPERATURE, masked)


def objective(**choices):
    plain = {"both_directions": False, "mask_duplicates": False, "mask_classes": False}
    return ContrastiveObjective(temperature=TEMPERATURE, **(plain | choices))


def mean(losses):
    return sum(losses) / len(losses)


def test_the_plain_objective_is_the_mean_over_queries(queries, targets, candidates):
    loss, logs = objective()(queries, targets, candidates)

    assert loss.item() == pytest.approx(mean(looped(queries, targets, candidates.labels)), abs=1e-5)
    assert logs == {"masked": 0.0}


@pytest.mark.parametrize(
    ("choices", "out"),
    [
        # target 3 copies the positive of query 0; queries 0 and 3 are equal, so each other's positives are right
        ({"mask_duplicates": True}, [(0, 3), (0, 6), (3, 0)]),
        # queries 0 and 2 are of one class
        ({"mask_classes": True}, [(0, 5), (2, 0)]),
        ({"mask_duplicates": True, "mask_classes": True}, [(0, 3), (0, 5), (0, 6), (2, 0), (3, 0)]),
    ],
)
def test_masks_leave_out_what_they_say(choices, out, queries, targets, candidates):
    masked = torch.zeros(4, 9, dtype=torch.bool)
    for place in out:
        masked[place] = True

    loss, logs = objective(**choices)(queries, targets, candidates)

    assert objective(**choices).mask(candidates).tolist() == masked.tolist()
    assert loss.item() == pytest.approx(mean(looped(queries, targets, candidates.labels, masked)), abs=1e-5)
    assert logs["masked"] == pytest.approx(len(out) / 36)


def test_both_directions_are_the_mean_of_the_two(queries, targets, candidates):
    forward = mean(looped(queries, targets, candidates.labels))
    backward = mean(looped(targets[candidates.labels], queries, [0, 1, 2, 3]))

    loss, _ = objective(both_directions=True)(queries, targets, candidates)

    assert loss.item() == pytest.approx((forward + backward) / 2, abs=1e-5)


def test_the_backward_direction_uses_the_same_mask(queries, targets, candidates):
    masked = objective(mask_duplicates=True).mask(candidates)
    forward = mean(looped(queries, targets, candidates.labels, masked))
    # row i of the backward mask: which queries may not be compared with the positive of i
    backward = mean(looped(targets[candidates.labels], queries, [0, 1, 2, 3], masked[:, candidates.labels].T))

    loss, _ = objective(both_directions=True, mask_duplicates=True)(queries, targets, candidates)

    assert masked[:, candidates.labels].any()
    assert loss.item() == pytest.approx((forward + backward) / 2, abs=1e-5)


@pytest.mark.parametrize("both", [False, True])
def test_masks_without_anything_to_mask_are_bit_equal_to_no_masks(both, queries, targets, candidates):
    distinct = Candidates(candidates.labels, candidates.owner, torch.arange(4), torch.arange(9), torch.tensor([-1] * 4))

    plain, _ = objective(both_directions=both)(queries, targets, distinct)
    masking, logs = objective(both_directions=both, mask_duplicates=True, mask_classes=True)(queries, targets, distinct)

    assert torch.equal(plain, masking)
    assert logs["masked"] == 0.0


def test_the_objective_is_built_from_its_settings():
    built = Contrastive(temperature=0.05, both_directions=True, mask_duplicates=False, mask_classes=True).build()

    assert vars(built) == {
        "temperature": 0.05, "both_directions": True, "mask_duplicates": False, "mask_classes": True,
    }  # fmt: skip


@pytest.mark.parametrize("temperature", [0.0, -0.1, float("nan")])
def test_a_temperature_that_is_not_positive_is_refused(temperature):
    with pytest.raises(InputError, match=f"temperature: expected more than 0, got {temperature}; VLM2Vec uses 0.02"):
        Contrastive(temperature=temperature)


def test_the_abstract_objective_builds_nothing():
    with pytest.raises(NotImplementedError):
        ObjectiveSettings().build()
