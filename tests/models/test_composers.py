"""Composers against their formulas, row by row."""

import math

import pytest
import torch
import torch.nn.functional as F

from mmembed import Embedder
from mmembed.errors import InputError
from mmembed.models.prompts import Kind
from mmembed.models.sequence import Hidden
from mmembed.models.settings import (
    DualEncoder,
    EmbedderSettings,
    LastToken,
    MultiLayer,
    Product,
    Scratch,
    Slerp,
    Sum,
)
from tests.cases import small_embedder

IMAGE, TEXT = int(Kind.IMAGE), int(Kind.TEXT)
# both, image, text, both
ROWS = [[IMAGE, TEXT], [IMAGE], [TEXT], [IMAGE, TEXT]]


def no_token(word):
    raise AssertionError(word)


def hidden_of(states):
    lengths = torch.tensor([len(row) for row in ROWS])
    kinds = torch.tensor([kind for row in ROWS for kind in row], dtype=torch.uint8)
    return Hidden(states, torch.full_like(kinds, 7), lengths, kinds, torch.ones(4, dtype=torch.bool))


def compose(settings, states):
    return settings.build(states.shape[1], no_token)(hidden_of(states))


def unit(vector):
    return vector / vector.square().sum().sqrt()


@pytest.fixture
def states():
    return 3 * torch.randn(6, 5)


def by_hand(settings, v, t):
    if isinstance(settings, Sum):
        w = settings.image_weight
        v, t = (unit(v), unit(t)) if settings.normalize == "before" else (v, t)
        return w * v + (1 - w) * t
    if isinstance(settings, Product):
        return unit(v) * unit(t)
    angle = math.acos(float(unit(v) @ unit(t)))
    ours, theirs = math.sin((1 - settings.alpha) * angle), math.sin(settings.alpha * angle)
    return (ours * unit(v) + theirs * unit(t)) / math.sin(angle)


CHOICES = [Sum(), Sum(0.3), Sum(0.3, "after"), Sum(1.0), Slerp(), Slerp(0.2), Slerp(0.0), Slerp(1.0), Product()]


@pytest.mark.parametrize("settings", CHOICES, ids=str)
def test_a_row_of_both_is_what_the_formula_says(settings, states):
    composed = compose(settings, states)

    assert torch.allclose(composed[0], by_hand(settings, states[0], states[1]), atol=1e-6)
    assert torch.allclose(composed[3], by_hand(settings, states[4], states[5]), atol=1e-6)


@pytest.mark.parametrize("settings", CHOICES, ids=str)
def test_a_row_of_one_part_is_that_part(settings, states):
    assert torch.equal(compose(settings, states)[1:3], states[2:4])


def test_one_half_points_where_the_plain_sum_points(states):
    plain = unit(unit(states[0]) + unit(states[1]))

    assert torch.allclose(unit(compose(Sum(), states)[0]), plain, atol=1e-6)


def test_a_great_circle_goes_from_image_to_text_on_the_unit_sphere(states):
    ends = compose(Slerp(0.0), states)[0], compose(Slerp(1.0), states)[0]

    assert torch.allclose(torch.stack(ends), F.normalize(states[:2], dim=-1), atol=1e-6)
    for alpha in (0.1, 0.5, 0.9):
        point = compose(Slerp(alpha), states)[0]
        walked = torch.acos(point @ ends[0]) / torch.acos(ends[0] @ ends[1])
        assert float(point.norm()) == pytest.approx(1, abs=1e-6)
        assert float(walked) == pytest.approx(alpha, abs=1e-4)


def test_equal_vectors_have_a_great_circle_and_a_slope():
    states = torch.randn(6, 5)
    states[1] = states[0]
    states.requires_grad_()

    composed = compose(Slerp(0.3), states)
    composed.sum().backward()

    assert torch.allclose(composed[0], unit(states[0]), atol=1e-6)
    assert states.grad.isfinite().all()


def test_halves_are_composed_in_float32(states):
    assert compose(Slerp(), states.bfloat16()).dtype == torch.float32


@pytest.mark.parametrize(("make", "where"), [(Sum, "image_weight"), (Slerp, "alpha")])
@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_a_share_outside_of_the_whole_is_refused(make, where, share):
    with pytest.raises(InputError, match=rf"pooler\.{where}: expected from 0 to 1, got {share}"):
        make(share)


@pytest.mark.parametrize("pooler", [Sum(), MultiLayer((1,), Slerp())])
def test_a_model_that_reads_media_and_text_as_one_sequence_refuses_a_composer(pooler):
    with pytest.raises(InputError, match=r"pooler: expected a pooler of tokens.* LastToken is usual"):
        small_embedder("qwen2_vl", pooler=pooler)


def test_a_dual_encoder_refuses_a_pooler_of_tokens():
    settings = EmbedderSettings(DualEncoder(scratch=Scratch("clip")), pooler=LastToken())

    with pytest.raises(InputError, match=r"pooler: expected a composer.* got LastToken; Sum is usual"):
        Embedder(settings)
