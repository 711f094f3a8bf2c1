"""Temperatures, kept and learned."""

import math

import pytest
import torch

from mmembed.losses.settings import Contrastive, LearnedTemperature, SourceRules

RULES = {"text": SourceRules(), "image": SourceRules(temperature=0.3), "video": SourceRules()}
FORMS = ("raw", "log")


def learning(parameter, **bounds):
    return Contrastive(temperature=0.1, learn=LearnedTemperature(parameter, **bounds)).build(RULES)


def test_a_kept_temperature_is_no_parameter_and_no_state():
    objective = Contrastive(temperature=0.1).build(RULES)

    assert objective.temperatures().tolist() == [0.1, 0.3, 0.1]
    assert list(objective.parameters()) == []
    assert objective.state_dict() == {}
    assert objective.learning_rate is None
    objective.clamp()


@pytest.mark.parametrize("parameter", FORMS)
def test_a_source_that_names_its_temperature_learns_one_of_its_own(parameter):
    objective = learning(parameter, lr=1e-3)

    temperatures = objective.temperatures()
    shared, own = torch.autograd.grad(temperatures[0] + temperatures[2], objective.parameters())[0]

    assert temperatures.tolist() == pytest.approx([0.1, 0.3, 0.1])
    # a raw temperature grows by its parameter, a logarithm's in proportion
    assert shared.item() == pytest.approx(2 * (1 if parameter == "raw" else 0.1))
    assert own.item() == 0
    assert objective.learning_rate == 1e-3


@pytest.mark.parametrize("parameter", FORMS)
def test_clamping_holds_the_bounds_and_nothing_else(parameter):
    objective = learning(parameter, low=0.05, high=0.5)
    (values,) = objective.parameters()
    before = values.detach().clone()

    objective.clamp()
    assert torch.equal(values, before)

    with torch.no_grad():
        values += torch.tensor([-5.0, 5.0])
    objective.clamp()
    assert objective.temperatures().tolist() == pytest.approx([0.05, 0.5, 0.05])


@pytest.mark.parametrize("parameter", FORMS)
def test_the_gradient_of_the_loss_is_that_of_differences(parameter, unit, distinct):
    batch = unit(4, 1), unit(8, 2), distinct(4, hard=1)
    objective = learning(parameter).double()
    (values,) = objective.parameters()
    (gradient,) = torch.autograd.grad(objective(*batch).share, values)

    step, ends = 1e-5, []
    for sign in (1, -1):
        with torch.no_grad():
            values[0] += sign * step
            ends.append(objective(*batch).value.item())
            values[0] -= sign * step

    assert gradient[0].item() == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-6)


@pytest.mark.parametrize("parameter", FORMS)
def test_a_learned_temperature_is_never_cut_to_half_precision(parameter):
    objective = learning(parameter).to(torch.bfloat16)

    assert {values.dtype for values in objective.parameters()} == {torch.float32}
    assert {values.dtype for values in objective.double().parameters()} == {torch.float64}
    assert objective.to("meta").temperatures().device.type == "meta"


def test_a_learned_temperature_is_saved_and_loaded():
    objective, other = learning("log"), learning("log")
    with torch.no_grad():
        next(objective.parameters()).add_(math.log(2))

    other.load_state_dict(objective.state_dict())

    assert other.temperatures().tolist() == pytest.approx([0.2, 0.6, 0.2])
