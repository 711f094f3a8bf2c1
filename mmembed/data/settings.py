"""Settings of the data: the sources of a mixture and how batches are drawn from them (torch-free)."""

import math
from dataclasses import dataclass, field, replace
from typing import Literal

from mmembed.errors import InputError, nearest
from mmembed.losses.settings import SourceRules

PROMPT_KINDS = ("none", "point", "points", "box", "jittered_box", "mask", "scribble")
"""What a region may become in training."""

_HELD_STEPS = 4
"""Steps of one pattern where four DataLoader workers live on each of eight GPUs."""


@dataclass(frozen=True)
class Source:
    """One table of a mixture; a mixture is an ordered mapping of names to these."""

    table: str
    """Path of a pair table (.jsonl or .parquet), relative to the data root."""

    weight: float = 1.0
    """Share of the blocks, relative to the other sources; only ratios count. 0 switches the source off."""

    limit: int | None = None
    """Use only the first rows of the table; None uses all."""

    instruction: str | None = None
    """Instruction of the queries that bring none."""

    loss: SourceRules = field(default_factory=SourceRules)
    """Where the loss of these queries differs from the objective's settings."""

    max_positives: int | None = None
    """Use only the first positives of each row; None uses all."""

    max_negatives: int | None = None
    """Use only the first hard negatives of each row; None uses all, 0 none."""

    query_image_negative: bool = False
    """Add what a composed query shows, without its words, to the hard negatives of its row, before those of the
    table: decisive for composed retrieval (MegaPairs, arXiv:2412.14475). A row that has it is left as it is."""

    mirrored: bool = False
    """Turn each row round: the query's media alone are asked for, the hard negatives answer, and the positives are the
    hard negatives (the second term of InstructCIR's loss, arXiv:2412.05756). For a second source of the same table; its
    loss and that of the first, each with ``in_batch: source``, average to the published two terms."""

    def __post_init__(self) -> None:
        if not (self.weight >= 0 and math.isfinite(self.weight)):
            raise InputError(
                "source.weight",
                expected="a positive number, or 0",
                got=self.weight,
                remedy="0 switches the source off",
            )
        for name, least in (("limit", 1), ("max_positives", 1), ("max_negatives", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise InputError(
                    f"source.{name}", expected=f"{least} or more", got=value, remedy="leave it out to use all"
                )
        if self.mirrored and self.query_image_negative:
            raise InputError(
                "source.mirrored", expected="query_image_negative false beside it, for there the picture is the query",
                got="both", remedy="give query_image_negative to the source that is not mirrored",
            )  # fmt: skip
        if self.mirrored and self.max_negatives == 0:
            raise InputError(
                "source.mirrored", expected="hard negatives, which answer a mirrored query", got="max_negatives 0",
                remedy="leave max_negatives out",
            )  # fmt: skip


@dataclass(frozen=True)
class Sampling:
    """How the global batch of a step is made of blocks, each block of one source."""

    batch_size: int = 64
    """Pairs in the global batch, over all ranks."""

    block_size: int = 64
    """Consecutive pairs of one source. Equal to the batch size, every batch is of one source; a block that does not
    fit into what is left of a batch goes on in the next."""

    window: int = 64
    """Blocks over which the shares of the sources are kept; their order is shuffled inside it."""

    hold: int = 1
    """Steps in a row that take the same sources in the same places, with other rows."""

    regime: Literal["recipe", "two_sources", "held_sources", "one_source"] = "recipe"
    """What the published training command of VLM2Vec-V2 (arXiv:2507.04590) made of its batches, by the number of
    DataLoader workers on 8 GPUs, for ablation. ``recipe``: what the paper describes, these settings (1 worker).
    ``two_sources``: blocks of half the batch (8 workers). ``held_sources``: the recipe's blocks, the same sources four
    steps in a row (4 workers). ``one_source``: one source a batch, four steps in a row (8 workers, later code)."""

    shares: Literal["weight", "rows"] = "weight"
    """What a source's share follows: its weight, or its rows times its weight. By rows, weight 1 everywhere is a
    concatenation, and weight 2 draws a source twice as often."""

    max_bad: float = 0.01
    """Share of a source's rows that may be unusable before the run stops; such a row is replaced by the next one."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "block_size", "window", "hold"):
            if getattr(self, name) < 1:
                raise InputError(
                    f"sampling.{name}", expected="1 or more", got=getattr(self, name), remedy="use a positive number"
                )
        if not 0 <= self.max_bad <= 1:
            raise InputError("sampling.max_bad", expected="0 to 1", got=self.max_bad, remedy="0.01 is one row of 100")
        if self.regime != "recipe" and self.hold != 1:
            raise InputError(
                "sampling.hold",
                expected=f"1 beside regime {self.regime}, which has a hold of its own",
                got=self.hold,
                remedy="leave out one of the two",
            )
        if self.regime == "two_sources" and self.batch_size % 2:
            raise InputError(
                "sampling.batch_size",
                expected="an even number for regime two_sources",
                got=self.batch_size,
                remedy=f"for example {self.batch_size + 1}",
            )

    @property
    def resolved(self) -> "Sampling":
        """The same with the regime written out as ``block_size`` and ``hold``."""
        if self.regime == "two_sources":
            return replace(self, regime="recipe", block_size=self.batch_size // 2)
        if self.regime == "held_sources":
            return replace(self, regime="recipe", hold=_HELD_STEPS)
        if self.regime == "one_source":
            return replace(self, regime="recipe", block_size=self.batch_size, hold=_HELD_STEPS)
        return self


@dataclass(frozen=True)
class RegionMixing:
    """Which prompt a query's region becomes at each step, so that a model learns to read all kinds.

    One annotation, a mask or a box, gives a point in it, several points, a box, one off the mark, itself or a scribble.
    A mask gives every kind, a box all but a mask, points give themselves and one of them; what an annotation cannot
    give falls out, and the other weights keep their ratios. Targets and held-out rows keep the regions that they have.
    """

    weights: dict[str, float]
    """How often each kind is drawn, by name: ``none`` (the region is left out), ``point``, ``points``, ``box``,
    ``jittered_box``, ``mask`` or ``scribble``; only ratios count, a kind not named is not drawn."""

    jitter: float = 0.1
    """Each side of a jittered box moves by up to this share of the box's width or height."""

    points: int = 5
    """Most points of ``points``, which are at least two."""

    outside: float = 0.3
    """Share of these points, beside the first, that lie outside and say so."""

    strokes: int = 3
    """Straight strokes of a scribble, each begun where the last ended."""

    def __post_init__(self) -> None:
        for name, weight in self.weights.items():
            if name not in PROMPT_KINDS:
                raise InputError(
                    f"region_prompts.weights.{name}", expected="a kind of prompt", got=f"'{name}'",
                    remedy=nearest(name, PROMPT_KINDS),
                )  # fmt: skip
            if not (weight >= 0 and math.isfinite(weight)):
                raise InputError(
                    f"region_prompts.weights.{name}", expected="a positive number, or 0", got=weight,
                    remedy="0 draws none of the kind",
                )  # fmt: skip
        if not any(self.weights.values()):
            raise InputError(
                "region_prompts.weights", expected="a kind with a weight", got=self.weights or "none",
                remedy="leave region_prompts out to keep the regions as they are",
            )  # fmt: skip
        if not 0 < self.jitter < 0.5:
            raise InputError(
                "region_prompts.jitter", expected="above 0 and below 0.5, where sides would meet", got=self.jitter,
                remedy="0.1 is usual",
            )  # fmt: skip
        if self.points < 2:
            raise InputError(
                "region_prompts.points", expected="at least 2", got=self.points, remedy="use the kind point for one"
            )
        if not 0 <= self.outside <= 1:
            raise InputError("region_prompts.outside", expected="0 to 1", got=self.outside, remedy="0 draws none")
        if self.strokes < 1:
            raise InputError("region_prompts.strokes", expected="at least 1", got=self.strokes, remedy="3 are usual")
