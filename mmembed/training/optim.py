"""AdamW and its schedules from settings."""

import math
from collections.abc import Callable, Iterable

from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from mmembed.training.settings import Optim


def make_optimizer(parameters: Iterable[nn.Parameter], settings: Optim) -> AdamW:
    """AdamW over the trainable parameters; matrices decay, vectors do not."""
    trainable = [p for p in parameters if p.requires_grad]
    matrices = [p for p in trainable if p.ndim > 1]
    vectors = [p for p in trainable if p.ndim <= 1]
    groups = [
        {"params": matrices, "weight_decay": settings.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return AdamW([g for g in groups if g["params"]], lr=settings.lr, betas=settings.betas, eps=settings.eps)


def make_schedule(optimizer: AdamW, settings: Optim, steps: int) -> LambdaLR:
    """The learning rate at each step, as a factor of the peak."""
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
