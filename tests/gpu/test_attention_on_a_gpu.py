"""On a GPU (``pytest -m gpu tests/gpu``): the kernel for rows of different lengths against one call for each."""

import pytest
import torch
import torch.nn.functional as F

from mmembed.models.attention import kernel_lacks, no_mask, row_attention
from tests.models.test_attention import Layer

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("is_causal", [None, True, False])
@pytest.mark.parametrize("lengths", [[4, 4, 4], [3, 5, 3, 1, 5], [300, 17, 129], [7]])
def test_rows_see_only_themselves(lengths, is_causal, dtype):
    lacks = kernel_lacks(torch.device("cuda"), dtype, 64)
    if lacks is not None:
        pytest.skip(lacks)
    states = [torch.randn(1, heads, sum(lengths), 64, device="cuda").to(dtype).requires_grad_() for heads in (4, 2, 2)]
    ends = torch.tensor([0, *lengths], device="cuda").cumsum(0, dtype=torch.int32)
    told = {"cu_seq_lens_q": ends, "max_length_q": max(lengths), "is_causal": is_causal, "scaling": 0.3}
    # the same numbers, without rounding
    exact = [state.detach().float().requires_grad_() for state in states]
    how = {"scale": 0.3, "is_causal": is_causal is not False, "enable_gqa": True}
    rows = zip(*(state.split(lengths, dim=2) for state in exact), strict=True)
    expected = torch.cat([F.scaled_dot_product_attention(*row, **how) for row in rows], dim=2).transpose(1, 2)

    output, weights = row_attention(Layer(), *states, no_mask(states[0]), varlen_kernel=True, **told)

    assert weights is None
    assert (output.dtype, output.shape) == (dtype, expected.shape)
    # probabilities and results are rounded to 8 bits at least
    assert torch.allclose(output.float(), expected, atol=2e-2, rtol=2e-2)
    direction = torch.randn_like(expected)
    (output * direction).sum().backward()
    (expected * direction).sum().backward()
    for ours, theirs in zip(states, exact, strict=True):
        assert torch.cosine_similarity(ours.grad.float().flatten(), theirs.grad.flatten(), dim=0) >= 0.999
