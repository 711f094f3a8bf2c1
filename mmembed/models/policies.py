"""Attention policies: which tokens of a row see which, said to the kernel in the form that it honours.

A mask of another form is not refused by the libraries but misread or dropped: a dictionary of masks stays causal for a
batch without padding, and a boolean mask is *added* to the scores by the eager kernel. So the mask is always explicit.
"""

from typing import Any

import torch
from torch import Tensor

from mmembed.errors import InputError
from mmembed.models.prompts import Kind
from mmembed.models.sequence import Sequence
from mmembed.models.settings import LanguageSettings
from mmembed.models.token_layout import TokenLayout

PREFIX = (Kind.INSTRUCTION, Kind.IMAGE, Kind.VIDEO, Kind.REGION)
"""Kinds of tokens that see each other under the prefix policy."""


def attention_mask(settings: LanguageSettings, sequence: Sequence, padding: TokenLayout, dtype: torch.dtype) -> Any:
    """What to hand to the language model as ``attention_mask``.

    Args:
        settings: policy, kernel and padding side.
        sequence: the tokens.
        padding: how they are padded or packed.
        dtype: of the hidden states.

    Returns:
        None (causal, nothing to hide), ``[B, L]`` (causal, or a kernel that takes no other), or ``[B, 1, L, L]``:
        boolean for sdpa, added to the scores for eager. None for packed rows, too.
    """
    if padding.segments:
        return None
    unpadded_causal = settings.unpadded_causal and padding.is_dense
    if settings.attention_policy == "causal" or unpadded_causal:
        # right padding needs no mask: no token sees one that comes after it
        masked = settings.padding_side == "left" and not padding.is_dense
        return padding.mask().long() if masked else None
    if settings.attention == "flash_attention_2":
        return None if padding.is_dense else padding.mask().long()
    seen = visible(settings.attention_policy, sequence, padding)
    return additive(seen, dtype) if settings.attention == "eager" else seen


def additive(seen: Tensor, dtype: torch.dtype) -> Tensor:
    """A boolean mask as the eager kernel takes it: added to the scores."""
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill(~seen, torch.finfo(dtype).min)


def visible(policy: str, sequence: Sequence, padding: TokenLayout) -> Tensor:
    """Which token (last axis) each token may see ``[B, 1, L, L]``: bidirectional or prefix."""
    real = padding.mask()
    longest = real.shape[1]
    places = torch.eye(longest, dtype=torch.bool, device=real.device)
    seen = real[:, None].expand(-1, longest, -1)
    if policy == "prefix":
        together = padding.pad(torch.isin(sequence.kinds, torch.tensor(PREFIX).to(sequence.kinds)))
        order = torch.arange(longest, device=real.device)
        seen = seen & ((order[None] <= order[:, None]) | (together[:, None] & together[:, :, None]))
    # a padded place sees itself: a softmax over nothing is not a number
    return (seen | places)[:, None]


def kernel_switch(settings: LanguageSettings, padding: TokenLayout) -> dict[str, Any]:
    """What to tell a kernel that takes no mask: where packed rows begin and end, and whether it is causal.

    They are arguments of the one call, which gradient checkpointing repeats with them; nothing in the model is changed.
    """
    takes_no_mask = settings.attention == "flash_attention_2" or padding.segments
    is_full = takes_no_mask and settings.attention_policy == "bidirectional"
    return padding.segments | ({"is_causal": False} if is_full else {})


def why_unpackable(config: Any, settings: LanguageSettings, longest: int) -> str | None:
    """Why rows of up to ``longest`` tokens cannot be packed, in words; None where they can.

    Args:
        config: of the language model.
        settings: policy and kernel.
        longest: tokens.
    """
    if settings.attention == "eager":
        return "attention: eager cannot be told where rows begin"
    if settings.attention_policy == "prefix":
        return "attention_policy: prefix needs a mask of each row"
    if settings.unpadded_causal:
        return "unpadded_causal depends on the padding"
    window = _window(config)
    if window is not None and longest > window:
        return f"a row has {longest} tokens, and the model's layers attend to windows of {window}"
    return None


def check_window(config: Any, settings: LanguageSettings, longest: int) -> None:
    """Refuse rows for which an explicit mask would undo a sliding window.

    Raises:
        InputError: a row longer than the window of a model that has one, under a policy other than causal.
    """
    window = _window(config)
    if settings.attention_policy != "causal" and window is not None and longest > window:
        raise InputError(
            "attention_policy", expected=f"rows within the model's attention window of {window} tokens",
            got=f"a row of {longest}", remedy="lower max_length, or use attention_policy: causal",
        )  # fmt: skip


def _window(config: Any) -> int | None:
    """Tokens to which some layers of a model attend at most, if there are such layers."""
    window: int | None = getattr(config, "sliding_window", None)
    slides = "sliding_attention" in (getattr(config, "layer_types", None) or ["sliding_attention"])
    return window if window and slides else None
