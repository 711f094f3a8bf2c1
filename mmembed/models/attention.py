"""Attention kernels registered with transformers.

The stock vision towers loop over pictures, one small kernel each. ``segments_flash_sdpa`` computes all segments of one
length in one call of scaled dot-product attention: the same sums in the same order, with fewer and larger kernels. Its
name holds "flash" because that is how transformers decides to hand a tower's segments over whole.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface

SEGMENTS = "segments_flash_sdpa"


def segment_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None = None,
    *,
    cu_seq_lens_q: Tensor,
    scaling: float | None = None,
    dropout: float = 0.0,
    **unused: Any,
) -> tuple[Tensor, None]:
    """Full attention inside each segment of a flat sequence.

    Args:
        module: the layer that asks.
        query: ``[1, heads, T, d]``; key and value alike.
        key: see query.
        value: see query.
        attention_mask: none; the segments are the mask.
        cu_seq_lens_q: where segments begin and end ``[S + 1]``.
        scaling: multiplies the scores.
        dropout: on the attention weights.
        unused: what transformers hands to flash kernels besides.

    Returns:
        ``[1, T, heads, d]`` and no weights.
    """
    starts, lengths = cu_seq_lens_q[:-1].long(), cu_seq_lens_q.diff()
    sizes = torch.unique(lengths).tolist()
    if len(sizes) == 1:
        # the usual case needs no gathering
        q, k, v = (t[0].view(t.shape[1], -1, sizes[0], t.shape[3]).transpose(0, 1) for t in (query, key, value))
        output = F.scaled_dot_product_attention(q, k, v, scale=scaling, dropout_p=dropout)
        return output.transpose(1, 2).flatten(0, 1)[None], None
    output = torch.empty_like(query[0].transpose(0, 1))
    for size in sizes:
        tokens = starts[lengths == size][:, None] + torch.arange(size, device=query.device)
        # the segments of one length as a batch: [S, heads, size, d]
        q, k, v = (t[0][:, tokens].transpose(0, 1) for t in (query, key, value))
        part = F.scaled_dot_product_attention(q, k, v, scale=scaling, dropout_p=dropout)
        output = output.index_put((tokens.flatten(),), part.transpose(1, 2).flatten(0, 1))
    return output[None], None


AttentionInterface.register(SEGMENTS, segment_attention)
