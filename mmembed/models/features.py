"""A tower's features kept by medium, so that one met again does not pass the tower again."""

from collections.abc import Collection
from dataclasses import replace

import torch
from torch import Tensor

from mmembed.models.backbone import Backbone
from mmembed.models.precision import whole_convolutions
from mmembed.models.sequence import Batch, Features


class SharedFeatures:
    """Features of a tower that is not training, shared by the batches of one step or window.

    Args:
        backbone: whose tower.
        only: fingerprints of the media worth keeping; None keeps all.
    """

    def __init__(self, backbone: Backbone, only: Collection[str] | None = None) -> None:
        self.backbone = backbone
        self.only = only
        self._known: dict[str, tuple[Tensor, list[Tensor]]] = {}

    def of(self, batch: Batch) -> Features:
        """The features of the batch's media, those not known computed now, without a gradient."""
        missing = [i for i, name in enumerate(batch.media) if name not in self._known]
        found = dict(self._known)
        if missing:
            with torch.no_grad(), whole_convolutions():
                new = self.backbone.vision(select_media(batch, missing))
            for place, i in enumerate(missing):
                found[batch.media[i]] = (new.maps[place], [layer[place] for layer in new.layers])
        self._known = {name: kept for name, kept in found.items() if self.only is None or name in self.only}
        media = [found[name] for name in batch.media]
        depth = len(media[0][1]) if media else 0
        return Features([m for m, _ in media], [[layers[k] for _, layers in media] for k in range(depth)])


def select_media(batch: Batch, media: list[int]) -> Batch:
    """A batch with only these of its media, as far as :meth:`Backbone.vision` looks."""
    if batch.pixels is None or len(media) == len(batch.media):
        return batch
    pieces = torch.split(batch.pixels, batch.blocks.tolist())
    return replace(
        batch,
        pixels=torch.cat([pieces[i] for i in media]),
        grids=batch.grids[media],
        blocks=batch.blocks[media],
        sizes=batch.sizes[media],
        media=[batch.media[i] for i in media],
    )
