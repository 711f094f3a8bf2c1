"""How a dual encoder's vector of the media and vector of the text become one. No torch here."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from mmembed.errors import InputError
from mmembed.models.settings.poolers import PoolerSettings, TokenId

if TYPE_CHECKING:
    from mmembed.models.poolers import Pooler


@dataclass(frozen=True)
class ComposerSettings(PoolerSettings):
    """How the image vector v and the text vector t of an item become one; an item of one of them keeps its vector."""

    abstract: ClassVar[bool] = True


@dataclass(frozen=True)
class Sum(ComposerSettings):
    """``w n(v) + (1 - w) n(t)`` with n(x) = x / ||x||, or the same of the vectors as they are."""

    image_weight: float = 0.5
    """w: 0 is the text alone, 1 the image alone; one half is the direction of the plain sum."""
    normalize: Literal["before", "after"] = "before"
    """Whether both are scaled to unit length before they are added, or only the embedder scales what comes out."""

    def __post_init__(self) -> None:
        _check_share(self.image_weight, "pooler.image_weight")

    def build(self, width: int, token_id: TokenId) -> "Pooler":
        """See :meth:`PoolerSettings.build`."""
        from mmembed.models.composers import SumComposer

        return SumComposer(self.image_weight, before=self.normalize == "before")


@dataclass(frozen=True)
class Slerp(ComposerSettings):
    """A point of the great circle from n(v) to n(t), O their angle (arXiv:2405.00571).

    It is ``sin((1 - a) O) / sin O n(v) + sin(a O) / sin O n(t)``.
    """

    alpha: float = 0.5
    """a: 0 is the image, 1 the text."""

    def __post_init__(self) -> None:
        _check_share(self.alpha, "pooler.alpha")

    def build(self, width: int, token_id: TokenId) -> "Pooler":
        """See :meth:`PoolerSettings.build`."""
        from mmembed.models.composers import SlerpComposer

        return SlerpComposer(self.alpha)


@dataclass(frozen=True)
class Product(ComposerSettings):
    """``n(v) * n(t)``, number by number.

    Not to be confused with the product of an image's and a text's *similarity* (i-CIR's baseline), which is no inner
    product with any one vector, and so is scored from two embeddings.
    """

    def build(self, width: int, token_id: TokenId) -> "Pooler":
        """See :meth:`PoolerSettings.build`."""
        from mmembed.models.composers import ProductComposer

        return ProductComposer()


def _check_share(value: float, where: str) -> None:
    if not 0 <= value <= 1:
        raise InputError(where, expected="from 0 to 1", got=value, remedy="0.5 weighs image and text alike")
