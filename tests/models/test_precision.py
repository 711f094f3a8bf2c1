"""Convolutions of towers compute in float32 where the weights are float32, and nobody else's setting is changed."""

import pytest
import torch

from mmembed import Item
from mmembed.models.features import SharedFeatures
from mmembed.models.precision import whole_convolutions
from mmembed.models.sequence import collate
from tests.cases import draw
from tests.families import family_embedder


def precision():
    return torch.backends.cudnn.conv.fp32_precision


@pytest.fixture
def watched(monkeypatch):
    """A small model that notes the precision of convolutions whenever its tower runs."""
    model, seen = family_embedder("qwen2_vl"), []
    run = type(model.backbone).vision
    monkeypatch.setattr(
        type(model.backbone), "vision", lambda self, batch: seen.append(precision()) or run(self, batch)
    )
    return model, seen


def test_the_setting_comes_back_whatever_happens():
    before = precision()

    with pytest.raises(KeyError), whole_convolutions():
        assert precision() == "ieee"
        raise KeyError

    assert precision() == before


def test_encoding_and_a_frozen_towers_features_are_in_whole_precision(watched):
    model, seen = watched
    before, item = precision(), Item.of({"image": draw(56, 56)})

    model.encode([item])
    SharedFeatures(model.vision).of(collate(model.prepare([item], "query")))

    assert seen == ["ieee", "ieee"]
    assert precision() == before
