"""Settings of the objectives. No torch here."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias

from mmembed.errors import InputError
from mmembed.settings import Part

if TYPE_CHECKING:
    from mmembed.losses.objectives import ContrastiveObjective, Objective
    from mmembed.losses.pseudo_words import DistillationObjective, LinCirObjective

Scope: TypeAlias = Literal["batch", "source", "own"]
Filled: TypeAlias = Literal["none", "query", "second"]
"""Which row of a pair holds a pseudo-word that belongs to the pair alone: none, its query or its second positive."""


@dataclass(frozen=True)
class SourceRules:
    """What a source of the mixture decides for its own pairs; None is the objective's choice."""

    temperature: float | None = None
    """Divides the similarities of its pairs; where temperatures are learned, one of its own."""
    in_batch: Scope | None = None
    """Whose targets its queries are compared with, besides their own hard negatives."""
    mask_classes: bool | None = None
    """The positives of pairs with the same class_id are no negatives of its queries."""

    def __post_init__(self) -> None:
        if self.temperature is not None:
            _check_temperature(self.temperature)


@dataclass(frozen=True)
class LearnedTemperature:
    """The temperature as a parameter (CLIP, arXiv:2103.00020 sec. 2.5; U-MARVEL learns it raw)."""

    parameter: Literal["raw", "log"] = "log"
    """The temperature itself, or the logarithm of its ratio to the first one."""
    lr: float | None = None
    """Its learning rate; None is the optimiser's."""
    low: float = 0.005
    """Smallest temperature; held after each step."""
    high: float = 1.0
    """Largest temperature; held after each step."""

    def __post_init__(self) -> None:
        if not 0 < self.low < self.high:
            raise InputError(
                "learn", expected="0 < low < high", got=f"low {self.low}, high {self.high}",
                remedy="0.005 and 1.0 are the defaults",
            )  # fmt: skip
        if self.lr is not None and not self.lr > 0:
            raise InputError("learn.lr", expected="more than 0", got=self.lr, remedy="leave it out for the optimiser's")


@dataclass(frozen=True)
class ObjectiveSettings(Part):
    """What training minimises."""

    abstract: ClassVar[bool] = True
    filled: ClassVar[Filled] = "none"

    @property
    def files(self) -> tuple[str, ...]:
        """What it reads besides the tables, relative to the data root."""
        return ()

    def build(self, rules: Mapping[str, SourceRules] | None = None) -> "Objective":
        """Make the objective.

        Args:
            rules: of each source by name, in the order of the mixture; none stands for one source without any.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Contrastive(ObjectiveSettings):
    """InfoNCE of each query over the targets of the batch (arXiv:1807.03748; VLM2Vec, arXiv:2410.05160 sec. 3.2)."""

    temperature: float = 0.02
    """Divides the similarity."""
    learn: LearnedTemperature | None = None
    """Learn the temperature from there on; None keeps it."""
    directions: tuple[float, float] = (1.0, 0.0)
    """Weights of query-to-target and target-to-query: 0.5 and 0.5 is their mean, 1 and 1 U-MARVEL's sum."""
    positives: Literal["log_sum", "each"] = "log_sum"
    """Several positives of a query: together in one numerator (MIL-NCE, arXiv:1912.06430 eq. 1), or each on its own."""
    share_negatives: bool = True
    """The hard negatives of other queries are negatives too."""
    in_batch: Scope = "batch"
    """Whose targets a query is compared with: all, those of its source, or its own hard negatives alone."""
    mask_duplicates: bool = True
    """A target equal to a positive, or a positive of an equal query, is no negative."""
    mask_classes: bool = False
    """The positives of pairs with the same class_id are no negatives."""
    margin: float | None = None
    """A target closer than the best positive by more than this is no negative (Qwen3-Embedding: 0.1); None keeps it."""
    block_rows: int = 1024
    """Queries compared at a time; memory grows with it, the loss does not depend on it."""

    def __post_init__(self) -> None:
        _check_temperature(self.temperature)
        if self.learn is not None:
            _check_bounds("temperature", self.temperature, self.learn)
        if not (min(self.directions) >= 0 and 0 < sum(self.directions) < float("inf")):
            raise InputError(
                "directions", expected="two weights, none below 0 and not both 0", got=self.directions,
                remedy="1 and 0 is query-to-target alone",
            )  # fmt: skip
        if self.margin is not None and not self.margin >= 0:
            raise InputError("margin", expected="0 or more", got=self.margin, remedy="leave it out to mask nothing")
        if self.block_rows < 1:
            raise InputError("block_rows", expected="at least 1", got=self.block_rows, remedy="1024 is the default")

    def build(self, rules: Mapping[str, SourceRules] | None = None) -> "ContrastiveObjective":
        """Make the objective.

        Args:
            rules: of each source by name, in the order of the mixture; none stands for one source without any.

        Raises:
            InputError: a source's temperature lies outside the bounds of what is learned.
        """
        from mmembed.losses.objectives import ContrastiveObjective

        rules = rules or {"all": SourceRules()}
        for name, source in rules.items():
            if self.learn is not None and source.temperature is not None:
                _check_bounds(f"{name}: temperature", source.temperature, self.learn)
        return ContrastiveObjective(self, rules)


@dataclass(frozen=True)
class LinCIR(ObjectiveSettings):
    """The text vector of a caption with a pseudo-word for its keywords becomes that of the caption (arXiv:2312.01998).

    A pair is a caption with its keywords masked, and the caption. The network of the embedder's composer makes the
    pseudo-word of ``e + noise u eps``: e is the caption's text vector, u is drawn from 0 to 1 and eps from a normal
    distribution. The mean squared error is minimised, of vectors that are not scaled to unit length. Only the network
    trains.
    """

    filled: ClassVar[Filled] = "query"

    noise: float = 1.0
    """Scales what is added to the caption's vector; the published code has no such factor, which is 1."""

    def __post_init__(self) -> None:
        if not self.noise >= 0:
            raise InputError("noise", expected="0 or more", got=self.noise, remedy="1 is published, 0 adds none")

    def build(self, rules: Mapping[str, SourceRules] | None = None) -> "LinCirObjective":
        """See :meth:`ObjectiveSettings.build`; sources have no rules here."""
        from mmembed.losses.pseudo_words import LinCirObjective

        return LinCirObjective()


@dataclass(frozen=True)
class Distillation(ObjectiveSettings):
    """A mapping network learns the pseudo-words that were found for pictures one by one (SEARLE, arXiv:2303.15247).

    A pair is a picture, a phrase about something like it, and the phrase with the placeholder in that thing's place.
    The loss is NT-Xent over the 2N rows of the teacher's and the network's pseudo-words, and ``phrases`` times
    ``1 - cos`` of the text vectors of both phrases. Only the network trains.
    """

    filled: ClassVar[Filled] = "second"

    teachers: str = "teachers.safetensors"
    """File of the pseudo-words to learn, relative to the data root; ``scripts/make_pseudo_words.py`` writes it."""
    temperature: float = 0.25
    """Divides the cosine of two pseudo-words."""
    phrases: float = 0.75
    """Weight of the second term."""

    @property
    def files(self) -> tuple[str, ...]:
        """See :attr:`ObjectiveSettings.files`."""
        return (self.teachers,)

    def __post_init__(self) -> None:
        _check_temperature(self.temperature)
        if not self.phrases >= 0:
            raise InputError("phrases", expected="0 or more", got=self.phrases, remedy="0.75 is published")

    def build(self, rules: Mapping[str, SourceRules] | None = None) -> "DistillationObjective":
        """See :meth:`ObjectiveSettings.build`; sources have no rules here."""
        from mmembed.losses.pseudo_words import DistillationObjective

        return DistillationObjective(self)


def _check_temperature(value: float) -> None:
    if not value > 0:
        raise InputError("temperature", expected="more than 0", got=value, remedy="VLM2Vec uses 0.02")


def _check_bounds(where: str, value: float, learn: LearnedTemperature) -> None:
    if not learn.low <= value <= learn.high:
        raise InputError(
            where, expected=f"{learn.low} to {learn.high}", got=value, remedy="begin inside learn.low and learn.high"
        )
