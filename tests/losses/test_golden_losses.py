"""Losses and gradients of U-MARVEL's published code."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mmembed.losses.settings import Contrastive, LearnedTemperature

SUM, MEAN = (1.0, 1.0), (0.5, 0.5)
CASES = {
    "in_batch/ce_tau0.05": {},
    "in_batch/ce_tau0.02": {"temperature": 0.02},
    "in_batch_dup/ce": {},
    "in_batch/sym_finetune_sum": {"directions": SUM},
    "in_batch/warmup_sym_avg": {"directions": MEAN},
    "hardneg/ce_tau0.05": {},
    "hardneg/ce_tau0.03": {"temperature": 0.03},
    "hardneg/own_only": {"in_batch": "own"},
}
QUERIES = {"in_batch": 6, "in_batch_dup": 6, "hardneg": 4}


@pytest.mark.parametrize("block_rows", [4, 1024])
@pytest.mark.parametrize("case", CASES)
def test_losses_and_gradients_equal_the_published_code(case, block_rows, golden, distinct):
    expected = json.loads((golden / "umarvel/losses.json").read_text())[case]
    arrays = np.load(golden / "umarvel/losses.npz")
    stage = case.split("/")[0]
    rows, count = torch.from_numpy(arrays[f"{stage}/E"]).double().requires_grad_(), QUERIES[stage]
    # the gradient of the temperature is that of the temperature itself
    settings = {"temperature": 0.05, "learn": LearnedTemperature("raw"), "mask_duplicates": False} | CASES[case]
    objective = Contrastive(block_rows=block_rows, **settings).build().double()

    unit = F.normalize(rows, dim=1)
    loss = objective(unit[:count], unit[count:], distinct(count, hard=len(rows) // count - 2))
    of_rows, of_temperature = torch.autograd.grad(loss.share, [rows, *objective.parameters()])

    assert loss.value.item() == pytest.approx(expected["loss64"], abs=1e-6)
    np.testing.assert_allclose(of_rows, arrays[f"{case}/grad_E64"], rtol=0, atol=1e-5)
    if expected["grad_temp64"] is not None:
        assert of_temperature.item() == pytest.approx(expected["grad_temp64"], rel=1e-5)
