"""What every region encoder is told. No torch here."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

from mmembed.errors import InputError
from mmembed.settings import Part

if TYPE_CHECKING:
    from mmembed.models.backbone import Backbone
    from mmembed.models.region_encoders.encoder import RegionEncoder
    from mmembed.models.region_encoders.preparer import RegionPreparer


@dataclass(frozen=True)
class RegionEncoderSettings(Part):
    """How a model is told which places of a picture are meant."""

    abstract: ClassVar[bool] = True

    def saved(self) -> Self:
        """The settings under which what this made is opened from where it was saved."""
        return self

    def preparer(self) -> "RegionPreparer":
        """Make the half that works on the CPU."""
        raise NotImplementedError

    def build(self, backbone: "Backbone") -> "RegionEncoder":
        """Make the half that works beside a backbone.

        Raises:
            InputError: a backbone that does not give what the encoder is made of.
        """
        from mmembed.models.region_encoders.encoder import RegionEncoder

        return RegionEncoder()


def check_share(name: str, value: float, remedy: str) -> None:
    """Refuse a share of a side, or of a colour, that is nothing or more than all.

    Raises:
        InputError: the setting is named.
    """
    if not 0 < value <= 1:
        raise InputError(f"regions.{name}", expected="above 0 and at most 1", got=value, remedy=remedy)


def from_root(checkpoint: str | None) -> str | None:
    """A checkpoint on this machine by its whole path, which holds wherever a saved model is opened; else as it is."""
    return str(Path(checkpoint).resolve()) if checkpoint is not None and Path(checkpoint).exists() else checkpoint
