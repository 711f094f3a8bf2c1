"""Settings of the objectives. No torch here."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from mmembed.errors import InputError
from mmembed.settings import Part

if TYPE_CHECKING:
    from mmembed.losses.objectives import ContrastiveObjective


@dataclass(frozen=True)
class ObjectiveSettings(Part):
    """What training minimises."""

    abstract: ClassVar[bool] = True

    def build(self) -> "ContrastiveObjective":
        """Make the objective."""
        raise NotImplementedError


@dataclass(frozen=True)
class Contrastive(ObjectiveSettings):
    """InfoNCE of each query over all targets of the batch (arXiv:1807.03748; VLM2Vec, arXiv:2410.05160 sec. 3.2)."""

    temperature: float = 0.02
    """Divides the similarity."""
    both_directions: bool = False
    """The mean of query-to-target and target-to-query."""
    mask_duplicates: bool = True
    """A target equal to the positive, or the positive of an equal query, is no negative."""
    mask_classes: bool = False
    """The positives of pairs with the same class_id are no negatives."""

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise InputError("temperature", expected="more than 0", got=self.temperature, remedy="VLM2Vec uses 0.02")

    def build(self) -> "ContrastiveObjective":
        """Make the objective."""
        from mmembed.losses.objectives import ContrastiveObjective

        return ContrastiveObjective(
            temperature=self.temperature,
            both_directions=self.both_directions,
            mask_duplicates=self.mask_duplicates,
            mask_classes=self.mask_classes,
        )
