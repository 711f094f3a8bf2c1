"""The tower's attention over segments against one small kernel a segment."""

import copy

import pytest
import torch
import torch.nn.functional as F

from mmembed.models.attention import SEGMENTS, segment_attention
from mmembed.models.sequence import collate


@pytest.mark.parametrize("lengths", [[4, 4, 4], [3, 5, 3, 1, 5], [7]])
def test_segments_see_only_themselves(lengths):
    query, key, value = (torch.randn(1, 2, sum(lengths), 8) for _ in range(3))
    ends = torch.tensor([0, *lengths]).cumsum(0, dtype=torch.int32)
    pieces = [t.split(lengths, dim=2) for t in (query, key, value)]
    expected = torch.cat(
        [F.scaled_dot_product_attention(*qkv, scale=0.3) for qkv in zip(*pieces, strict=True)], dim=2
    ).transpose(1, 2)

    output, weights = segment_attention(torch.nn.Identity(), query, key, value, cu_seq_lens_q=ends, scaling=0.3)

    assert torch.allclose(output, expected, atol=1e-6)
    assert weights is None


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
def test_towers_give_the_features_and_gradients_of_the_stock_kernel(family, mixed_items, scratch_embedder):
    backbone = scratch_embedder(family).backbone
    stock = copy.deepcopy(backbone)
    stock.model.visual.config._attn_implementation = "sdpa"
    batch = collate(scratch_embedder(family).prepare(mixed_items, "query"))
    results = []
    for tower in (backbone, stock):
        features = torch.cat(tower.vision(batch).maps)
        weight = tower.model.visual.blocks[0].attn.qkv.weight
        results.append((features, torch.autograd.grad(features.square().sum(), weight)[0]))

    (ours, our_gradient), (theirs, their_gradient) = results
    assert backbone.model.visual.config._attn_implementation == SEGMENTS
    assert torch.allclose(ours, theirs, atol=1e-5, rtol=1e-5)
    assert torch.allclose(our_gradient, their_gradient, rtol=1e-4, atol=1e-4 * their_gradient.abs().max().item())
