"""Attention kernels registered with transformers: inside each row or picture of a flat sequence.

The stock vision towers loop over pictures, one small kernel each. ``segments_flash_sdpa`` computes all segments of one
length in one call of scaled dot-product attention: the same sums in the same order, with fewer and larger kernels. Its
name holds "flash" because that is how transformers decides to hand a tower's segments over whole.

``sdpa_rows`` is transformers' own ``sdpa`` until it is told where rows begin and end; then each row sees itself alone.
It stands in a model for good, for gradient checkpointing repeats a layer when nothing around it is left.
"""

import inspect
from functools import cache
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

try:
    from torch.nn.attention.varlen import varlen_attn
except ImportError:  # torch before 2.10
    varlen_attn = None  # type: ignore[assignment]

SEGMENTS = "segments_flash_sdpa"
ROWS = "sdpa_rows"


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
    how = {"scaling": scaling, "dropout": dropout, "is_causal": False}
    return _by_length(module, (query, key, value), cu_seq_lens_q, how), None


def row_attention(  # noqa: PLR0913  # as transformers calls it
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    cu_seq_lens_q: Tensor | None = None,
    max_length_q: int = 0,
    varlen_kernel: bool = False,
    is_causal: bool | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **more: Any,
) -> tuple[Tensor, None]:
    """Causal or full attention inside each row of a flat sequence; transformers' ``sdpa`` where no rows are told.

    Args:
        module: the layer that asks.
        query: ``[1, heads, T, d]``.
        key: as query, of as many heads or fewer; value alike.
        value: see key.
        attention_mask: see :func:`no_mask`; rows that are told are the mask.
        cu_seq_lens_q: where rows begin and end ``[B + 1]``, int32.
        max_length_q: tokens of the longest row.
        varlen_kernel: whether torch's kernel for rows of different lengths is used; it knows no dropout.
        is_causal: whether a token sees those before it only; None is what the layer says.
        scaling: multiplies the scores.
        dropout: on the attention weights.
        more: what transformers hands over besides.

    Returns:
        ``[1, T, heads, d]`` and no weights.
    """
    how = {"scaling": scaling, "dropout": dropout, "is_causal": is_causal}
    if attention_mask is not None and not attention_mask.numel():
        attention_mask = None
    if cu_seq_lens_q is None:
        output, _ = sdpa_attention_forward(module, query, key, value, attention_mask, **how, **more)
        return output, None
    if varlen_kernel and not dropout:
        causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
        return _by_kernel((query, key, value), cu_seq_lens_q, max_length_q, causal=causal, scaling=scaling), None
    return _by_length(module, (query, key, value), cu_seq_lens_q, how), None


AttentionInterface.register(SEGMENTS, segment_attention)
AttentionInterface.register(ROWS, row_attention)
AttentionMaskInterface.register(ROWS, ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])


def why_no_kernel(model: Any) -> str | None:
    """Why a decoder cannot use torch's kernel for rows of different lengths, in words; None where it can."""
    config, weight = model.config, model.get_input_embeddings().weight
    head_size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return kernel_lacks(weight.device, _computed_in(weight), head_size)


def no_mask(embeds: Tensor) -> Tensor:
    """What to hand to a model with ``sdpa_rows`` for no mask at all.

    For none transformers makes one of its own where positions do not count on by one: in padding, between packed rows.
    A mask of four axes it leaves as it is.
    """
    return embeds.new_empty(1, 1, 0, 0)


@cache
def kernel_lacks(device: torch.device, dtype: torch.dtype, head_size: int) -> str | None:
    """What torch's kernel for rows of different lengths is not made for, in words; None where it can be used.

    Args:
        device: where the model is.
        dtype: in which attention is computed.
        head_size: numbers of a head.
    """
    kernel = "the kernel for rows of different lengths"
    if device.type != "cuda":
        return f"{kernel} needs a GPU, and the model is on {device.type}"
    if dtype not in (torch.bfloat16, torch.float16):
        return f"{kernel} computes in half precision, and the model in {str(dtype).removeprefix('torch.')}"
    if head_size > 256 or head_size % 8:
        return f"{kernel} takes heads of a multiple of 8 up to 256 numbers, and the model's have {head_size}"
    if torch.cuda.get_device_capability(device) < (8, 0):
        return f"{kernel} needs a GPU of compute capability 8.0, not {torch.cuda.get_device_name(device)}"
    if varlen_attn is None or "enable_gqa" not in inspect.signature(varlen_attn).parameters:
        return f"{kernel} and grouped heads is not in torch {torch.__version__}"
    return None


def _computed_in(tensor: Tensor) -> torch.dtype:
    # as scaled dot-product attention does
    casts = tensor.is_cuda and torch.is_autocast_enabled("cuda")
    return torch.get_autocast_dtype("cuda") if casts else tensor.dtype


def _by_kernel(
    states: tuple[Tensor, Tensor, Tensor], ends: Tensor, longest: int, *, causal: bool, scaling: float | None
) -> Tensor:
    query, key, value = (t[0].transpose(0, 1).to(_computed_in(t)) for t in states)
    output: Any = varlen_attn(
        query,
        key,
        value,
        ends,
        ends,
        longest,
        longest,
        scale=scaling,
        window_size=(-1, 0) if causal else (-1, -1),
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return cast("Tensor", output[None])


# lengths are data, for which a compiler has no code
@torch.compiler.disable  # type: ignore[untyped-decorator]
def _by_length(module: nn.Module, states: tuple[Tensor, Tensor, Tensor], ends: Tensor, how: dict[str, Any]) -> Tensor:
    """Attention inside segments, those of one length together as a batch."""
    lengths = ends.diff()
    sizes, numbers = torch.unique_consecutive(lengths, return_counts=True)
    if len(sizes) > len(torch.unique(lengths)):
        # neighbours differ: bring segments of one length together, and back
        order = _sorted_tokens(ends)
        query, key, value = (t[:, :, order] for t in states)
        ends = nn.functional.pad(lengths.sort().values.cumsum(0), (1, 0))
        by_length: Tensor = _by_length(module, (query, key, value), ends, how)
        return by_length[:, order.argsort()]
    tokens = (sizes * numbers).tolist()
    parts = []
    for size, *pieces in zip(sizes.tolist(), *(torch.split(t[0], tokens, dim=1) for t in states), strict=True):
        # [heads, S * size, d] -> [S, heads, size, d]
        query, key, value = (piece.unflatten(1, (-1, size)).transpose(0, 1) for piece in pieces)
        part, _ = sdpa_attention_forward(module, query, key, value, None, **how)
        parts.append(part.flatten(0, 1))
    return torch.cat(parts)[None]


def _sorted_tokens(ends: Tensor) -> Tensor:
    """The tokens of segments in the order of the segments' lengths."""
    lengths = torch.repeat_interleave(ends.diff(), ends.diff())
    return lengths.argsort(stable=True)
