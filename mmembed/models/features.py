"""A tower's features kept by medium, so that one met again does not pass the tower again."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from mmembed.models.sequence import Batch, Features


class SharedFeatures:
    """Features of a tower that is not training, shared by the batches of one step or window.

    Args:
        vision: the tower: batch -> features.
        only: fingerprints of the media worth keeping; None keeps all.
    """

    def __init__(self, vision: Callable[[Batch], Features], only: Collection[str] | None = None) -> None:
        self.vision = vision
        self.only = only
        self._known: dict[str, tuple[Tensor, list[Tensor], list[Tensor]]] = {}

    def of(self, batch: Batch) -> Features:
        """The features of the batch's media, those not known computed now, without a gradient."""
        missing = [i for i, name in enumerate(batch.media) if name not in self._known]
        found = dict(self._known)
        if missing:
            with torch.no_grad():
                new = self.vision(select_media(batch, missing))
            for place, i in enumerate(missing):
                layers, taps = ([layer[place] for layer in of] for of in (new.layers, new.taps))
                found[batch.media[i]] = (new.maps[place], layers, taps)
        self._known = {name: kept for name, kept in found.items() if self.only is None or name in self.only}
        media = [found[name] for name in batch.media]
        return Features(
            [one[0] for one in media], _by_layer([one[1] for one in media]), _by_layer([one[2] for one in media])
        )


def _by_layer(media: Sequence[list[Tensor]]) -> list[list[Tensor]]:
    """For each medium its layers -> for each layer its media."""
    return [list(layer) for layer in zip(*media, strict=True)]


def select_media(batch: Batch, media: list[int]) -> Batch:
    """A batch with only these of its media, as far as :meth:`Backbone.vision` looks."""
    if batch.pixels is None or len(media) == len(batch.media):
        return batch
    blocks = batch.blocks.tolist()

    def chosen(tensor: Tensor) -> Tensor:
        pieces = torch.split(tensor, blocks)
        return torch.cat([pieces[i] for i in media])

    return replace(
        batch,
        pixels=chosen(batch.pixels),
        marks=None if batch.marks is None else chosen(batch.marks),
        guides=None if batch.guides is None else batch.guides[media],
        grids=batch.grids[media],
        blocks=batch.blocks[media],
        sizes=batch.sizes[media],
        media=[batch.media[i] for i in media],
    )
