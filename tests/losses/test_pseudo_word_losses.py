"""Losses and gradients of SEARLE's and LinCIR's published codes; what they are at their limits."""

import json
import math

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from mmembed.errors import InputError
from mmembed.losses.pseudo_words import nt_xent
from mmembed.losses.settings import Distillation, LinCIR


@pytest.fixture(scope="module")
def published(golden):
    folder = golden / "cir/mapping"
    return json.loads((folder / "training.json").read_text()) | load_file(folder / "golden.safetensors")


@pytest.mark.parametrize("case", ["lincir_loss_eval", "lincir_loss_l2_normalize"])
def test_the_squared_error_is_that_of_lincir(case, published):
    loss = LinCIR().build()(published[f"{case}.replaced_embeds"], published["encode_text.lincir_org"])

    assert loss.value.item() == pytest.approx(published[case]["value"], rel=1e-5)
    assert loss.share.item() == pytest.approx(published[case]["value"], rel=1e-5)
    assert loss.per_query.mean().item() == pytest.approx(loss.value.item(), rel=1e-6)


def test_distillation_and_its_gradient_are_those_of_searle(published):
    teachers, words = published["distil.v1"], published["distil.v2"].clone().requires_grad_()

    loss = nt_xent(words, teachers, published["searle_distil_loss"]["temperature"]).mean()
    loss.backward()

    assert loss.item() == pytest.approx(published["searle_distil_loss"]["value"], rel=1e-5)
    np.testing.assert_allclose(words.grad, published["distil.grad_v2"], rtol=0, atol=1e-5)


def test_the_phrases_weigh_one_minus_their_cosine():
    words = torch.eye(3)
    phrases, filled = torch.tensor([[1.0, 0.0]]).repeat(3, 1), torch.tensor([[0.0, 2.0], [3.0, 0.0], [-1.0, 0.0]])

    plain = Distillation(phrases=0.0).build()(words, words, filled, phrases)
    both = Distillation(phrases=0.75).build()(words, words, filled, phrases)

    assert both.logs["phrases"] == pytest.approx(1.0)
    assert (both.value - plain.value).item() == pytest.approx(0.75)
    assert (both.per_query - plain.per_query).tolist() == pytest.approx([0.75, 0.0, 1.5])


def test_equal_pseudo_words_of_unlike_pictures_are_as_close_as_they_can_be():
    words = torch.eye(4)

    loss = nt_xent(words, 3 * words, 0.25)

    # the partner has cosine 1, the six other rows 0
    assert loss.tolist() == pytest.approx([math.log(math.exp(4) + 6) - 4] * 4, rel=1e-5)


def test_a_single_pair_has_nothing_to_be_told_from():
    assert nt_xent(torch.tensor([[1.0, 2.0]]), torch.tensor([[-2.0, 1.0]]), 0.25).tolist() == [0.0]


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: LinCIR(noise=-1.0), "noise"),
        (lambda: Distillation(temperature=0.0), "temperature"),
        (lambda: Distillation(phrases=-0.1), "phrases"),
    ],
)
def test_a_setting_out_of_bounds_is_refused(make, field):
    with pytest.raises(InputError, match=field):
        make()
