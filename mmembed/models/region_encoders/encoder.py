"""The half of a region encoder that works beside the backbone."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import ClassVar

from torch import Tensor, nn

from mmembed.errors import InputError
from mmembed.models.backbone import Backbone
from mmembed.models.sequence import Batch, Features, Sequence


class RegionEncoder(nn.Module):
    """Changes nothing: the encoder of what its preparer alone says. Subclasses fill tokens or mark patches.

    Attributes:
        unsaved: beginnings of the names of weights that are not saved along, because another checkpoint has them.
    """

    unsaved: tuple[str, ...] = ()
    marks_patches: ClassVar[bool] = False
    """Whether what the tower gives depends on the regions, and on weights of this encoder."""

    def forward(self, sequence: Sequence, batch: Batch, features: Features, backbone: Backbone) -> Sequence:
        """The sequence with the tokens that were kept free filled.

        Args:
            sequence: of the batch, embedded.
            batch: with ``regions``.
            features: of its media.
            backbone: that gave both.
        """
        return sequence

    @contextmanager
    def marking(self, batch: Batch, backbone: Backbone) -> Iterator[None]:
        """While the block runs, the tower of ``backbone`` sees where the regions of the batch's media are."""
        yield


def check_region_encoder(encoder: RegionEncoder, backbone: Backbone) -> None:
    """Refuse an encoder that fills tokens beside a backbone whose sequences have none for it.

    Raises:
        InputError: both are named.
    """
    if isinstance(encoder, TokenRegionEncoder) and not backbone.keeps_tokens:
        raise InputError(
            "regions", expected="an encoder without tokens, for media and text are no sequence here",
            got=type(encoder).__name__.removesuffix("Encoder"), remedy="use Overlay, Crop, MaskChannel or TextRegions",
        )  # fmt: skip


class TokenRegionEncoder(RegionEncoder, ABC):
    """An encoder that fills tokens."""

    def forward(self, sequence: Sequence, batch: Batch, features: Features, backbone: Backbone) -> Sequence:
        """See :meth:`RegionEncoder.forward`."""
        if not batch.regions:
            return sequence
        places = batch.kept_free.nonzero()[:, 0]
        tokens = self.tokens(batch, features, backbone).to(sequence.embeds.dtype)
        return replace(sequence, embeds=sequence.embeds.index_copy(0, places, tokens))

    @abstractmethod
    def tokens(self, batch: Batch, features: Features, backbone: Backbone) -> Tensor:
        """The tokens of the batch's regions one after another ``[R, D]``, in the order of ``batch.regions``."""
