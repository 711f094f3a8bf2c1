"""What trains, at which rate: parts of a model, groups of parameters, the optimiser, its schedule, clipping."""

import math
from collections.abc import Callable, Collection, Iterable
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from mmembed.errors import InputError, nearest
from mmembed.models.embedder import Embedder
from mmembed.training.settings import Optim, PartRates


def freeze(embedder: Embedder, parts: Collection[str]) -> None:
    """Let train what the embedder was built to train, except the named parts of its backbone.

    Raises:
        InputError: a name that no parameter begins with.
    """
    for name, parameter in embedder.named_parameters():
        parameter.requires_grad_(name in embedder.trainable)
    backbone = dict(embedder.backbone.named_parameters())
    check_parts("freeze", parts, backbone)
    for name, parameter in backbone.items():
        if match_part(name, parts) is not None:
            parameter.requires_grad_(False)


def match_part(name: str, parts: Iterable[str]) -> str | None:
    """The longest of ``parts`` that a parameter's name begins with."""
    return max((part for part in parts if name.startswith(part)), key=len, default=None)


def check_parts(where: str, parts: Iterable[str], names: Collection[str]) -> None:
    """Refuse a part that none of the parameters' names begins with.

    Raises:
        InputError: such a part; the nearest known one is named.
    """
    for part in parts:
        if not any(name.startswith(part) for name in names):
            # a typing error deep down is best mended by a name as deep, one at the top by a short list
            depth = max(2, part.count(".") + 1)
            known = {".".join(name.split(".")[:depth]) for name in names}
            raise InputError(
                where, expected="the beginning of a parameter's name", got=f"'{part}'", remedy=nearest(part, known)
            )


def parameter_groups(
    named: Iterable[tuple[str, nn.Parameter]], settings: Optim, *, parts: bool = True
) -> list[dict[str, Any]]:
    """The trainable parameters in groups that share rate and decay, for :func:`make_optimizer`.

    What no part names comes first, then the parts as the settings order them; in each, matrices before vectors. Whole
    and sharded parameters (FSDP2) stand in groups of their own, because no operation takes both.

    Args:
        named: names and parameters of a backbone, or of what stands beside it.
        settings: the rates.
        parts: whether the settings' parts are parts of these parameters.

    Returns:
        Groups with ``params``, ``lr`` (the peak), ``weight_decay`` and ``name``; none is empty.

    Raises:
        InputError: a part that no parameter's name begins with, or whose parameters are all frozen.
    """
    rates = settings.parts if parts else {}
    known = list(named)
    trainable = [(name, parameter) for name, parameter in known if parameter.requires_grad]
    check_parts("optim.parts", rates, [name for name, _ in known])
    _refuse_frozen(rates, [name for name, _ in trainable])
    groups = {key: _empty_group(*key, settings) for key in product((None, *rates), (True, False), (False, True))}
    for name, parameter in trainable:
        key = match_part(name, rates), parameter.ndim > 1, isinstance(parameter, DTensor)
        groups[key]["params"].append(parameter)
    return [group for group in groups.values() if group["params"]]


def make_optimizer(groups: list[dict[str, Any]], settings: Optim) -> Optimizer:
    """AdamW over groups of parameters.

    Raises:
        InputError: nothing trains, or the 8-bit AdamW is not installed or meets sharded parameters.
    """
    if not groups:
        raise InputError(
            "optim", expected="a parameter that trains", got="none",
            remedy="freeze less, or give a quantised base a lora or an adapter",
        )  # fmt: skip
    kind = AdamW if settings.algorithm == "adamw" else _eight_bit_adamw(groups)
    return kind(groups, lr=settings.lr, betas=settings.betas, eps=settings.eps, weight_decay=settings.weight_decay)


def make_schedule(optimizer: Optimizer, settings: Optim, steps: int) -> LambdaLR:
    """The learning rate at each step, as a factor of each group's own peak."""
    return LambdaLR(optimizer, lr_factor(settings, steps))


def lr_factor(settings: Optim, steps: int) -> Callable[[int], float]:
    """Step -> factor: ``step / warmup`` up to the peak, then the decay, zero at ``steps``."""
    warmup = settings.warmup_steps

    def factor(step: int) -> float:
        if step < warmup:
            return step / warmup
        done = min((step - warmup) / max(1, steps - warmup), 1.0)
        if settings.schedule == "cosine":
            return 0.5 * (1 + math.cos(math.pi * done))
        return 1.0 - done if settings.schedule == "linear" else 1.0

    return factor


def clip_gradients(parameters: Iterable[nn.Parameter], limit: float | None) -> Tensor:
    """Scale the gradients so that the norm of all of them together is at most ``limit``.

    Args:
        parameters: whole and sharded ones; every rank that holds a shard must call.
        limit: the largest norm; None leaves the gradients as they are.

    Returns:
        The norm before scaling, the same on every rank.
    """
    given = [parameter for parameter in parameters if parameter.grad is not None]
    kinds = [[p for p in given if isinstance(p, DTensor) is sharded] for sharded in (False, True)]
    norms = [_norm(kind) for kind in kinds if kind] or [_norm([])]
    # of one kind the norm is torch's own, to the bit
    norm = norms[0] if len(norms) == 1 else torch.linalg.vector_norm(torch.stack(norms))
    if limit is not None:
        for kind in kinds:
            clip_grads_with_norm_(kind, limit, norm)
    return norm


def _norm(parameters: list[nn.Parameter]) -> Tensor:
    norm = get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])
    return norm.full_tensor() if isinstance(norm, DTensor) else norm


def _empty_group(part: str | None, matrices: bool, sharded: bool, settings: Optim) -> dict[str, Any]:
    rates = PartRates() if part is None else settings.parts[part]
    decay = settings.weight_decay if rates.weight_decay is None else rates.weight_decay
    words = (part, "matrices" if matrices else "vectors", "sharded" if sharded else None)
    return {
        "params": [],
        "lr": settings.lr if rates.lr is None else rates.lr,
        "weight_decay": decay if matrices or settings.decay == "all" else 0.0,
        "name": " ".join(word for word in words if word is not None),
    }


def _refuse_frozen(parts: Iterable[str], trainable: Collection[str]) -> None:
    for part in parts:
        if not any(name.startswith(part) for name in trainable):
            raise InputError(
                "optim.parts", expected="a part that trains", got=f"'{part}', all of it frozen",
                remedy="leave its rates out",
            )  # fmt: skip


def _eight_bit_adamw(groups: list[dict[str, Any]]) -> Callable[..., Optimizer]:
    if any(isinstance(parameter, DTensor) for group in groups for parameter in group["params"]):
        raise InputError(
            "optim.algorithm", expected="whole parameters for adamw_8bit", got="sharded ones",
            remedy="set algorithm: adamw, or strategy: ddp",
        )  # fmt: skip
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError as error:
        raise InputError(
            "optim.algorithm", expected="bitsandbytes installed", got=error,
            remedy="pip install mmembed[quantized], or set algorithm: adamw",
        ) from error  # fmt: skip
    make: Callable[..., Optimizer] = AdamW8bit
    return make
