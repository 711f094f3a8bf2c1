"""InstructCIR's second stage (arXiv:2412.05756): a composed query finds the caption after the change, and every caption
before a change is a hard negative of all."""

import json
import math

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from mmembed.losses.settings import Contrastive
from tests.losses.test_ranks import run_ranks

TAU = 0.05
SETTINGS = {"temperature": TAU, "mask_duplicates": False}
ROWS = 6


@pytest.fixture(scope="module")
def record(golden):
    return json.loads((golden / "cir/instructcir/golden.json").read_text())


@pytest.fixture(scope="module")
def arrays(golden):
    return load_file(golden / "cir/instructcir/loss.safetensors")


@pytest.fixture
def loss(distinct):
    """The loss of composed queries, captions after the change and captions before it, of unit length."""

    def of(queries, after, before):
        objective = Contrastive(**SETTINGS).build()
        return objective(queries, torch.cat([after, before]), distinct(len(queries), hard=1)).share

    return of


def named(arrays):
    return [arrays[f"loss.z{i}"] for i in (1, 2, 3)]


def test_the_loss_and_its_gradients_equal_the_published_code(arrays, record, loss):
    rows = [row.clone().requires_grad_() for row in named(arrays)]

    found = loss(*(F.normalize(row, dim=1) for row in rows))
    found.backward()

    assert found.item() == pytest.approx(record["loss"]["value"], rel=1e-5)
    for number, row in enumerate(rows, 1):
        assert (row.grad - arrays[f"loss.grad_z{number}"]).abs().max() <= 1e-5


def test_one_triplet_is_compared_with_its_own_negative_alone(arrays, record, loss):
    one = [F.normalize(row[:1], dim=1) for row in named(arrays)]

    assert loss(*one).item() == pytest.approx(record["loss_n1"], rel=1e-5)


def test_two_ranks_have_the_published_loss_and_gradients(arrays, record, tmp_path):
    queries, after, before = (row.double() for row in named(arrays))
    case = {
        "ranks": record["loss_2ranks"]["rows"], "settings": SETTINGS | {"learn": "raw"}, "rules": {},
        "owner": torch.arange(2 * ROWS) % ROWS, "positive": torch.arange(2 * ROWS) < ROWS,
        "query_keys": torch.arange(ROWS), "target_keys": torch.arange(2 * ROWS),
        "classes": torch.full((ROWS,), -1), "sources": torch.zeros(ROWS, dtype=torch.long),
        "queries": queries, "targets": torch.cat([after, before]),
    }  # fmt: skip

    ranks = [found["cases"]["stage2"] for found in run_ranks(tmp_path, {"stage2": case}, 2)]

    wanted = torch.cat([arrays["loss2.grad_z2"], arrays["loss2.grad_z3"]])
    for found, rows, value in zip(ranks, case["ranks"], record["loss_2ranks"]["values"], strict=True):
        assert found["value"].item() == pytest.approx(value, rel=1e-5)
        assert (found["of_queries"] - arrays["loss2.grad_z1"][rows]).abs().max() <= 1e-5
        assert (found["of_targets"] - wanted[found["targets"]]).abs().max() <= 1e-5


@pytest.mark.parametrize("size", [1, 2, 8])
def test_opposite_captions_before_the_change_leave_next_to_nothing(loss, size):
    units = torch.eye(size, dtype=torch.float64)

    found = loss(units, units, -units)

    expected = math.log1p(2 * (size - 1) * math.exp(-1 / TAU) + math.exp(-2 / TAU))
    assert found.item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("size", [1, 2, 8])
def test_captions_that_the_change_leaves_alone_cost_at_least_log_2(loss, unit, size):
    units = unit(size, seed=4)

    assert loss(units, units, units).item() >= math.log(2)


def test_the_order_of_the_captions_before_the_change_is_nothing(loss, unit):
    queries, after, before = (unit(ROWS, seed) for seed in (1, 2, 3))

    found = loss(queries, after, before[torch.tensor([3, 0, 5, 1, 4, 2])])

    assert found.item() == pytest.approx(loss(queries, after, before).item(), rel=1e-12)
