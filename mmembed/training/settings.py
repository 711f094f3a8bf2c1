"""Settings of a training stage. No torch here."""

from dataclasses import dataclass, field
from typing import Literal

from mmembed.data.settings import RegionMixing, Sampling, Source
from mmembed.errors import InputError
from mmembed.losses.settings import Contrastive, ObjectiveSettings, SourceRules

MB = 1 << 20


def _refuse(where: str, value: object, expected: str, remedy: str, *, unless: bool) -> None:
    if not unless:
        raise InputError(where, expected=expected, got=value, remedy=remedy)


def _at_least(least: int, name: str, settings: object, fields: tuple[str, ...]) -> None:
    """Refuse a whole number that is too small; one that may be left out is not looked at then."""
    for field_name in fields:
        value = getattr(settings, field_name)
        good = value is None or value >= least
        _refuse(f"{name}.{field_name}", value, f"at least {least}", "use a larger number", unless=good)


@dataclass(frozen=True)
class PartRates:
    """Rates of one part of a backbone."""

    lr: float | None = None
    """Peak learning rate; None is the optimiser's."""
    weight_decay: float | None = None
    """Decay; None is the optimiser's."""


@dataclass(frozen=True)
class Optim:
    """AdamW (arXiv:1711.05101) under a warm-up and a decay."""

    algorithm: Literal["adamw", "adamw_8bit"] = "adamw"
    """Whether the two moments are kept in 32 bits, or in 8 by blocks of 256 (arXiv:2110.02861, bitsandbytes)."""
    lr: float = 5e-5
    """Peak learning rate."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay rates of the two moments."""
    eps: float = 1e-8
    """Added to the root of the second moment."""
    weight_decay: float = 0.0
    """Weights shrink by so much of themselves, times the learning rate, at each step."""
    decay: Literal["matrices", "all"] = "matrices"
    """What the weight decay shrinks: matrices, or vectors (norms, biases) too."""
    parts: dict[str, PartRates] = field(default_factory=dict)
    """Rates of parts of the backbone, by the beginning of their parameters' names; the longest that fits counts."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """Decay to zero at the last step, after the warm-up."""
    warmup_steps: int = 0
    """Steps over which the rate rises from zero to the peak."""
    clip_norm: float | None = 1.0
    """Largest norm of the whole gradient; None never clips."""
    accumulate: int = 1
    """Gradients of so many consecutive global batches are averaged before one step. Their negatives do not see each
    other, unlike those of one larger batch_size, which costs no more memory thanks to cached gradients."""
    ema: float | None = None
    """Decay of a moving average of the trainable weights, 0.999 say; 0 keeps the weights themselves, None none."""

    def __post_init__(self) -> None:
        named: dict[str, Optim | PartRates] = {"optim": self}
        named |= {f"optim.parts.{part}": rates for part, rates in self.parts.items()}
        for where, rates in named.items():
            if rates.lr is not None and not rates.lr > 0:
                raise InputError(f"{where}.lr", expected="more than 0", got=rates.lr, remedy="5e-5 is VLM2Vec-V2's")
            decay = rates.weight_decay
            if decay is not None and not decay >= 0:
                raise InputError(f"{where}.weight_decay", expected="at least 0", got=decay, remedy="0 turns it off")
        _at_least(0, "optim", self, ("warmup_steps",))
        clips = self.clip_norm is None or self.clip_norm > 0
        _refuse("optim.clip_norm", self.clip_norm, "more than 0", "null never clips", unless=clips)
        _refuse("optim.eps", self.eps, "more than 0", "1e-8 is usual", unless=self.eps > 0)
        shares = all(0 <= beta < 1 for beta in self.betas)
        _refuse("optim.betas", self.betas, "two of at least 0 and below 1", "0.9 and 0.999 are usual", unless=shares)
        if self.accumulate < 1:
            raise InputError("optim.accumulate", expected="at least 1", got=self.accumulate, remedy="1 turns it off")
        if self.ema is not None and not 0 <= self.ema < 1:
            raise InputError("optim.ema", expected="at least 0 and below 1", got=self.ema, remedy="0.999 is usual")


@dataclass(frozen=True)
class Chunks:
    """How the batch is cut for cached gradients."""

    rows: int | None = None
    """Most rows in a chunk; None has no bound."""
    tokens: int | None = None
    """Most tokens in a chunk, padding counted; None has no bound."""
    padding: float | None = None
    """Largest share of a chunk that may be padding, 0.2 for a fifth; None has no bound."""
    keep_mb: int = 4096
    """Activations kept between the two passes, in MiB; chunks beyond it are embedded twice."""
    sort: bool = True
    """Rows are cut from long to short, so that those of a chunk are of like length; False cuts them in the order given,
    queries before targets."""
    halve: bool = True
    """Where memory runs out, in validation too, the chunk is cut in halves and the step goes on; False ends the run, as
    do sharded weights and settings of a backbone that let a vector depend on the rows beside it."""

    def __post_init__(self) -> None:
        _at_least(1, "chunks", self, ("rows", "tokens"))
        _at_least(0, "chunks", self, ("keep_mb",))
        good = self.padding is None or 0 <= self.padding < 1
        _refuse("chunks.padding", self.padding, "at least 0 and below 1", "0.2 is usual", unless=good)


@dataclass(frozen=True)
class Validation:
    """A slice held out of training, embedded from time to time."""

    rows: int = 64
    """Last rows of each source that are held out."""
    every: int = 500
    """Steps between two validations."""

    def __post_init__(self) -> None:
        _at_least(1, "validation", self, ("rows", "every"))


@dataclass(frozen=True)
class FeatureFiles:
    """Features of a tower that does not train, kept on disk, so that a medium passes it in the first epoch only."""

    path: str = "features"
    """Folder, absolute or relative to the data root; several runs, also of other towers, may share one."""
    max_gb: float = 100.0
    """Most that the features of all towers in the folder take, in GiB; what was not used for longest goes first. Less
    than an epoch reads keeps little of use."""

    def __post_init__(self) -> None:
        _refuse("features.max_gb", self.max_gb, "more than 0", "features: null keeps none", unless=self.max_gb > 0)


@dataclass(frozen=True)
class Checkpoints:
    """How often the state of a stage is written, and how much of it is kept."""

    every: int = 500
    """Optimiser steps between two checkpoints; one more is written at the end and when the run is told to stop."""
    keep: int = 2
    """How many of the newest are kept."""
    keep_every: int | None = None
    """Those at a multiple of so many steps are kept too; None keeps none beside the newest."""

    def __post_init__(self) -> None:
        _at_least(1, "checkpoints", self, ("every", "keep", "keep_every"))


@dataclass(frozen=True)
class Stage:
    """One stretch of training: data, what trains, objective, optimiser."""

    mixture: dict[str, Source]
    """Sources by name."""
    steps: int
    """Optimiser steps."""
    sampling: Sampling = field(default_factory=Sampling)
    """Batch and blocks."""
    region_prompts: RegionMixing | None = None
    """What the queries' regions become, drawn anew at each step; None keeps them as they are."""
    objective: ObjectiveSettings = field(default_factory=Contrastive)
    """What is minimised."""
    optim: Optim = field(default_factory=Optim)
    """How it is minimised."""
    chunks: Chunks = field(default_factory=Chunks)
    """How the batch is cut."""
    freeze: tuple[str, ...] = ()
    """Parts that do not train, by the beginning of their parameters' names, e.g. ``model.visual``."""
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    """Arithmetic, as Lightning names it. Not ``16-mixed``: cached gradients would meet its loss scale twice."""
    workers: int = 0
    """Processes that prepare batches; the batches do not depend on it."""
    cache_mb: int = 0
    """Prepared media kept in memory by each process, in MiB."""
    features: FeatureFiles | None = None
    """Features of a tower that does not train, kept on disk; None computes them in each step."""
    validation: Validation | None = None
    """Held-out slice; None trains on every row."""
    checkpoints: Checkpoints = field(default_factory=Checkpoints)
    """How often the state is written."""
    finish: Literal["last", "best", "ema"] = "last"
    """Which weights the stage hands on: the last, the best on the held-out slice, or their moving average."""
    diverged: float | None = 4.0
    """The run stops when the loss is so many times that of the stage's first steps, and a nat; None never stops."""
    log_every: int = 10
    """Steps between two logged points."""
    loggers: tuple[Literal["tensorboard", "csv", "wandb"], ...] = ("tensorboard",)
    """Where they go."""
    strategy: Literal["ddp", "fsdp2"] = "ddp"
    """With several processes: the weights whole on each (ddp), or spread over them layer by layer (fsdp2)."""

    @property
    def rules(self) -> dict[str, SourceRules]:
        """What the objective is told about each source, in order."""
        return {name: source.loss for name, source in self.mixture.items()}

    def ends_step(self, batch: int) -> bool:
        """Whether the optimiser steps after the global batch of this number, from 0."""
        return (batch + 1) % self.optim.accumulate == 0

    def validates_after(self, step: int) -> bool:
        """Whether the held-out slice is embedded after so many optimiser steps; a short stage does so at its end."""
        return self.validation is not None and step % min(self.validation.every, self.steps) == 0

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise InputError("stage.steps", expected="at least 1", got=self.steps, remedy="leave the stage out instead")
        _at_least(1, "stage", self, ("log_every",))
        _at_least(0, "stage", self, ("workers", "cache_mb"))
        good = self.diverged is None or self.diverged >= 1
        _refuse("stage.diverged", self.diverged, "at least 1", "null never stops", unless=good)
        if self.finish == "best" and self.validation is None:
            raise InputError("stage.finish", expected="a validation to be best at", got="none", remedy="add validation")
        if self.finish == "ema" and self.optim.ema is None:
            raise InputError("stage.finish", expected="optim.ema to average with", got="none", remedy="0.999 is usual")
