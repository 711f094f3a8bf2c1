"""The optimiser's groups and the learning rate at every step."""

import math

import pytest
import torch
from torch import nn

from mmembed.errors import InputError
from mmembed.training.optim import lr_factor, make_optimizer, make_schedule
from mmembed.training.settings import Optim


@pytest.mark.parametrize(
    ("settings", "factors"),
    [
        (Optim(schedule="linear"), [1, 0.75, 0.5, 0.25, 0]),
        (Optim(schedule="constant", warmup_steps=2), [0, 0.5, 1, 1, 1]),
        (Optim(schedule="linear", warmup_steps=2), [0, 0.5, 1, 0.5, 0]),
        (Optim(schedule="cosine"), [1, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2, 0]),
        (Optim(schedule="linear", warmup_steps=4), [0, 0.25, 0.5, 0.75, 1]),
    ],
)
def test_the_factor_at_every_step(settings, factors):
    factor = lr_factor(settings, 4)

    assert [factor(step) for step in range(5)] == pytest.approx(factors, abs=1e-12)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_the_factor_stays_zero_after_the_last_step(schedule):
    assert lr_factor(Optim(schedule=schedule), 4)(9) == pytest.approx(0, abs=1e-12)


def test_matrices_decay_vectors_do_not_and_frozen_weights_are_left_out():
    model = nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3), nn.Linear(3, 1))
    model[2].weight.requires_grad_(False)

    optimizer = make_optimizer(model.parameters(), Optim(weight_decay=0.1, lr=0.01, betas=(0.8, 0.9), eps=1e-6))

    groups = [(group["weight_decay"], [tuple(p.shape) for p in group["params"]]) for group in optimizer.param_groups]
    assert groups == [(0.1, [(3, 2)]), (0.0, [(3,), (3,), (3,), (1,)])]
    assert (optimizer.defaults["lr"], optimizer.defaults["betas"], optimizer.defaults["eps"]) == (
        0.01,
        (0.8, 0.9),
        1e-6,
    )


def test_a_model_of_vectors_alone_has_one_group():
    assert len(make_optimizer(nn.LayerNorm(3).parameters(), Optim()).param_groups) == 1


def test_the_schedule_drives_the_optimizer():
    optimizer = make_optimizer([nn.Parameter(torch.ones(2, 2))], Optim(lr=0.4, warmup_steps=1))
    schedule = make_schedule(optimizer, Optim(lr=0.4, warmup_steps=1), steps=3)
    rates = []
    for _ in range(3):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()

    assert rates == pytest.approx([0.0, 0.4, 0.2])


def test_a_learning_rate_that_is_not_positive_is_refused():
    with pytest.raises(InputError, match=r"optim\.lr: expected more than 0, got 0; 5e-5 is VLM2Vec-V2's"):
        Optim(lr=0)
