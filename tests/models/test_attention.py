"""The tower's attention over segments against one small kernel a segment."""

import copy

import pytest
import torch
import torch.nn.functional as F

from mmembed.models.attention import SEGMENTS, kernel_lacks, no_mask, row_attention, segment_attention
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


class Layer(torch.nn.Module):
    """An attention layer as transformers makes them, with two heads of queries to one of keys."""

    is_causal = True
    num_key_value_groups = 2


@pytest.mark.parametrize("is_causal", [None, True, False])
@pytest.mark.parametrize("lengths", [[4, 4, 4], [3, 5, 3, 1, 5], [5, 3, 3], [7]])
def test_rows_see_only_themselves(lengths, is_causal):
    query, key, value = (torch.randn(1, heads, sum(lengths), 8) for heads in (4, 2, 2))
    ends = torch.tensor([0, *lengths]).cumsum(0, dtype=torch.int32)
    pieces = zip(*(t.split(lengths, dim=2) for t in (query, key, value)), strict=True)
    how = {"scale": 0.3, "is_causal": is_causal is not False, "enable_gqa": True}
    expected = torch.cat([F.scaled_dot_product_attention(*qkv, **how) for qkv in pieces], dim=2).transpose(1, 2)

    told = {"cu_seq_lens_q": ends, "max_length_q": max(lengths), "is_causal": is_causal, "scaling": 0.3}
    output, weights = row_attention(Layer(), query, key, value, no_mask(query), **told)

    assert torch.allclose(output, expected, atol=1e-6)
    assert weights is None


def test_rows_keep_the_dropout_of_the_attention():
    query = key = value = torch.ones(1, 1, 6, 4)
    ends = torch.tensor([0, 4, 6], dtype=torch.int32)

    # the kernel for rows of different lengths knows none, so it is not asked
    output, _ = row_attention(
        torch.nn.Identity(), query, key, value, None, cu_seq_lens_q=ends, dropout=0.5, varlen_kernel=True
    )

    assert not torch.allclose(output, torch.ones_like(output))


@pytest.mark.parametrize(
    ("device", "dtype", "head_size", "lacks"),
    [
        ("cpu", torch.bfloat16, 64, "needs a GPU, and the model is on cpu"),
        ("cuda", torch.float32, 64, "computes in half precision, and the model in float32"),
        ("cuda", torch.bfloat16, 512, "takes heads of a multiple of 8 up to 256 numbers, and the model's have 512"),
        ("cuda", torch.float16, 100, "takes heads of a multiple of 8 up to 256 numbers, and the model's have 100"),
    ],
)
def test_where_the_kernel_for_rows_of_different_lengths_does_not_serve_is_said(device, dtype, head_size, lacks):
    kernel = "the kernel for rows of different lengths"

    assert kernel_lacks(torch.device(device), dtype, head_size) == f"{kernel} {lacks}"


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
