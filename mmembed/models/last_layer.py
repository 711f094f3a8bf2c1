"""The last layer of a language model, computed only at the one token of a row that the pooler reads.

Its queries at the other tokens, and all that follows the attention there, never reach a vector: keys and values do. So
the layer runs twice. At all tokens it runs until it hands its keys and values to its cache, and no further; then it
runs at the tokens read, and its cache answers with the keys and values of all. What the library's layer does to them
(rotation, norms, adapters, quantisation) is done by the library's code, and its attention is its own. The projection to
queries, which precedes the cache, is the one thing still computed at every token for nothing.
"""

import inspect
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from threading import Lock
from typing import Any

import torch
from torch import Tensor, nn

from mmembed.counters import count
from mmembed.errors import InputError
from mmembed.models.poolers import OneTokenPooler, Pooler
from mmembed.models.token_layout import TokenLayout

# what transformers' layers call their cache, now and before, and what else is put in their way by name
_CACHE = ("cache", "past_key_values")
_CUT = ("position_embeddings", "attention_mask")
# how rows lie and where each is read, of the run that a thread is in
_READ: ContextVar[tuple[TokenLayout, Tensor] | None] = ContextVar("_READ", default=None)
_HOOKING = Lock()


class _Held(Exception):  # noqa: N818  # leaves a layer's forward in the middle; no error
    """The keys and values are held, and the rest of the layer is not wanted."""


class _Keys:
    """What stands for a layer's cache: it takes keys and values once, and then answers with them."""

    def __init__(self) -> None:
        self.held: tuple[Tensor, Tensor] | None = None

    def update(self, keys: Tensor, values: Tensor, *args: Any, **more: Any) -> tuple[Tensor, Tensor]:
        """What a decoder layer asks of its cache.

        Raises:
            _Held: the first time.
        """
        if self.held is None:
            self.held = keys, values
            raise _Held
        return self.held

    def by_row(self, starts: Tensor, longest: int) -> None:
        """Lay those of rows one behind another ``[1, H, T, d]`` side by side ``[B, H, L, d]``; what is beyond is any's.

        Args:
            starts: where each row begins.
            longest: tokens of the longest row, L.
        """
        if self.held is not None:
            keys, values = self.held
            tokens = starts[:, None] + torch.arange(longest, device=starts.device)
            tokens = tokens.clamp(max=keys.shape[2] - 1)
            self.held = keys[0][:, tokens].transpose(0, 1), values[0][:, tokens].transpose(0, 1)


def check_last_layer(backbone: nn.Module, pooler: Pooler) -> None:
    """Refuse ``last_layer: pooled`` where the last layer is needed at other tokens or cannot be run so.

    Raises:
        InputError: what stands in the way.
    """
    why = why_at_all_tokens(backbone, pooler)
    if why is not None:
        raise InputError("speed.last_layer: pooled", expected=why[0], got=why[1], remedy="leave it at auto")


def why_at_all_tokens(backbone: nn.Module, pooler: Pooler) -> tuple[str, str] | None:
    """Why the last layer is computed at all tokens: what was to be expected, and what is there; None where it need not.

    Args:
        backbone: with its settings.
        pooler: of its hidden states.
    """
    if not isinstance(pooler, OneTokenPooler):
        return "a pooler that reads one token of a row: LastToken or BeforeToken", type(pooler).__name__
    layers = layers_of_decoder(backbone)
    if not layers or not hasattr(layers[-1], "self_attn"):
        return "a decoder whose last layer is one of self-attention", type(backbone).__name__
    unlike = _unlike(layers[-1], inspect.signature(layers[-1].forward).parameters)
    if unlike is not None:
        return unlike
    settings, config = backbone.settings, backbone.model.config  # type: ignore[union-attr]
    # a caller may have turned it on in the library's model
    if settings.gradient_checkpointing or getattr(layers[-1], "gradient_checkpointing", False):  # type: ignore[union-attr]
        return "gradient_checkpointing: false", "true, which runs a layer again when its cache is gone"
    if settings.attention == "flash_attention_2":  # type: ignore[union-attr]
        return "attention: sdpa or eager", "flash_attention_2"
    deepstack = getattr(getattr(config, "vision_config", None), "deepstack_visual_indexes", None) or []
    if len(deepstack) >= len(layers):
        return "a last layer to which no features of pictures are added", f"{len(deepstack)} of {len(layers)} layers"
    return None


def _unlike(layer: nn.Module, names: Collection[str]) -> tuple[str, str] | None:
    """What a layer's arguments should be called and how they are, where they are called otherwise; else None."""
    if all(name in names for name in _CUT) and any(name in names for name in _CACHE):
        return None
    expected = f"a last layer told {' and '.join(_CUT)} by name, and its cache as {' or '.join(_CACHE)}"
    return expected, f"{type(layer).__name__} with {', '.join(names)}"


def layers_of_decoder(backbone: nn.Module) -> Any:
    """The layers of a language model that is a decoder; nothing of others."""
    return getattr(getattr(backbone, "language_model", None), "layers", None) or ()


@contextmanager
def last_layer_at(backbone: nn.Module, layout: TokenLayout, places: Tensor | None) -> Iterator[None]:
    """While the block runs, the language model gives the last states of one token of each row ``[B, 1, D]``.

    Args:
        backbone: that :func:`check_last_layer` let pass.
        layout: how the rows are padded or packed.
        places: in each row the place of the token ``[B]``; with None the model gives all, as ever.
    """
    if places is None:
        count("last_layer_tokens", layout.shape[0] * layout.shape[1])
        yield
        return
    _hook_once(layers_of_decoder(backbone)[-1])
    token = _READ.set((layout, places))
    try:
        yield
    finally:
        _READ.reset(token)


def _hook_once(layer: nn.Module) -> None:
    """Let a layer ask where it is read, for good: hooks that come and go would meet those of other threads."""
    with _HOOKING:
        if _narrow not in layer._forward_pre_hooks.values():
            layer.register_forward_pre_hook(_narrow, with_kwargs=True)


def _narrow(
    layer: Any, args: tuple[Any, ...], more: dict[str, Any] | None = None
) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """What a layer is given, at the tokens that are read; nothing else where all are."""
    read = _READ.get()
    # another thread may meet the hook before torch knows that it takes keywords
    if read is None or more is None:
        return None
    unlike = _unlike(layer, more)
    if unlike is not None:
        raise InputError("speed.last_layer", expected=unlike[0], got=unlike[1], remedy="last_layer: all")
    layout, places = read
    columns = layout.columns_at(places)
    states, *rest = args
    keys = _Keys()
    more = more | {next(name for name in _CACHE if name in more): keys}
    with suppress(_Held):
        # run and not called: hooks are for the one whole run, which follows
        layer.forward(*args, **more)
    positions = more.get("position_ids")
    cut: dict[str, Any] = {
        "position_embeddings": tuple(_at(part, columns) for part in more["position_embeddings"]),
        "position_ids": None if positions is None else _at(positions[..., None], columns)[..., 0],
    }
    is_causal = more.get("is_causal", getattr(layer.self_attn, "is_causal", True))
    if layout.segments:
        keys.by_row(columns - places, layout.longest)
        # the rows lie side by side now, as if padded
        cut |= dict.fromkeys(layout.segments)
        last = places if is_causal else layout.segments["cu_seq_lens_q"].diff() - 1
        cut["attention_mask"] = _up_to(last, layout.longest)
    else:
        cut["attention_mask"] = _mask_at(columns, more["attention_mask"], layout.longest, causal=is_causal)
    count("last_layer_tokens", len(columns))
    return (_at(states, columns), *rest), more | cut


def _mask_at(columns: Tensor, mask: Tensor | None, longest: int, *, causal: bool) -> Tensor | None:
    """The line of each row's token in a mask of all ``[B, 1, L, L] -> [B, 1, 1, L]``; None where it sees every key."""
    # an empty one is none: see no_mask
    if mask is not None and mask.numel():
        return _at(mask.expand(len(columns), -1, -1, -1).transpose(0, 1), columns).transpose(0, 1)
    # only sdpa is told nothing of a causal mask
    return _up_to(columns, longest) if causal and bool((columns < longest - 1).any()) else None


def _at(values: Tensor, columns: Tensor) -> Tensor:
    """``[..., B, L, D] -> [..., B, 1, D]``, one place of each row; what all rows share may stand there once."""
    rows = torch.arange(len(columns), device=columns.device)
    return values.expand(*values.shape[:-3], len(columns), -1, -1)[..., rows, columns, :].unsqueeze(-2)


def _up_to(last: Tensor, longest: int) -> Tensor:
    """A mask of the keys up to one of each row ``[B] -> [B, 1, 1, L]``."""
    return (torch.arange(longest, device=last.device) <= last[:, None])[:, None, None]
