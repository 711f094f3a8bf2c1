"""Settings of a training stage. No torch here."""

from dataclasses import dataclass, field
from typing import Literal

from mmembed.data.settings import Sampling, Source
from mmembed.errors import InputError
from mmembed.losses.settings import Contrastive, ObjectiveSettings

MB = 1 << 20


@dataclass(frozen=True)
class Optim:
    """AdamW (arXiv:1711.05101) under a warm-up and a decay."""

    lr: float = 5e-5
    """Peak learning rate."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay rates of the two moments."""
    eps: float = 1e-8
    """Added to the root of the second moment."""
    weight_decay: float = 0.0
    """Decay of matrices; vectors (norms, biases) have none."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """Decay to zero at the last step, after the warm-up."""
    warmup_steps: int = 0
    """Steps over which the rate rises from zero to the peak."""
    clip_norm: float | None = 1.0
    """Largest norm of the whole gradient; None never clips."""

    def __post_init__(self) -> None:
        if not self.lr > 0:
            raise InputError("optim.lr", expected="more than 0", got=self.lr, remedy="5e-5 is VLM2Vec-V2's")


@dataclass(frozen=True)
class Chunks:
    """How the batch is cut for cached gradients."""

    rows: int | None = None
    """Most rows in a chunk; None has no bound."""
    tokens: int | None = None
    """Most tokens in a chunk, padding counted; None has no bound. With it rows of like length share a chunk."""
    padding: float | None = None
    """Largest share of a chunk that may be padding, 0.2 for a fifth; None has no bound. Likewise."""
    keep_mb: int = 4096
    """Activations kept between the two passes, in MiB; chunks beyond it are embedded twice."""


@dataclass(frozen=True)
class Validation:
    """A slice held out of training, embedded from time to time."""

    rows: int = 64
    """Last rows of each source that are held out."""
    every: int = 500
    """Steps between two validations."""


@dataclass(frozen=True)
class Stage:
    """One stretch of training: data, what trains, objective, optimiser."""

    mixture: dict[str, Source]
    """Sources by name."""
    steps: int
    """Optimiser steps."""
    sampling: Sampling = field(default_factory=Sampling)
    """Batch and blocks."""
    objective: ObjectiveSettings = field(default_factory=Contrastive)
    """What is minimised."""
    optim: Optim = field(default_factory=Optim)
    """How it is minimised."""
    chunks: Chunks = field(default_factory=Chunks)
    """How the batch is cut."""
    freeze: tuple[str, ...] = ()
    """Parts that do not train, by the beginning of their parameters' names, e.g. ``model.visual``."""
    precision: Literal["32-true", "bf16-mixed", "bf16-true"] = "32-true"
    """Arithmetic, as Lightning names it. Not ``16-mixed``: cached gradients would meet its loss scale twice."""
    workers: int = 0
    """Processes that prepare batches; the batches do not depend on it."""
    cache_mb: int = 0
    """Prepared media kept in memory by each process, in MiB."""
    validation: Validation | None = None
    """Held-out slice; None trains on every row."""
    checkpoint_every: int = 500
    """Steps between two checkpoints."""
    finish: Literal["last", "best"] = "last"
    """Which weights the stage hands on: the last, or the best on the held-out slice."""
    log_every: int = 10
    """Steps between two logged points."""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise InputError("stage.steps", expected="at least 1", got=self.steps, remedy="leave the stage out instead")
        if self.finish == "best" and self.validation is None:
            raise InputError("stage.finish", expected="a validation to be best at", got="none", remedy="add validation")
