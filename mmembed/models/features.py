"""A tower's features kept by medium, so that one met again does not pass the tower again."""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from mmembed.counters import count
from mmembed.models.feature_store import FeatureStore, MediumFeatures
from mmembed.models.media_cache import MediaCache
from mmembed.models.sequence import Batch, Features


class SharedFeatures:
    """Features of a tower that is not training, shared by the batches of one step or call.

    A medium's are looked up in memory, then on disk, and else computed, without a gradient.

    Args:
        vision: the tower: batch -> features.
        only: fingerprints of the media that are surely met again, which are kept whatever they take; None is all.
        max_bytes: of the features of other media kept in memory, those used least lately out first.
        store: where features are kept on disk; None keeps none there.
    """

    def __init__(
        self, vision: Callable[[Batch], Features], only: Collection[str] | None = None, *, max_bytes: int = 0,
        store: FeatureStore | None = None,
    ) -> None:  # fmt: skip
        self.vision = vision
        self.store = store
        self._only = only
        self._known: dict[str, MediumFeatures] = {}
        self._past = MediaCache(max_bytes)

    @property
    def held(self) -> int:
        """Bytes in memory that count to the bound."""
        return self._past.bytes

    def expect(self, only: Collection[str]) -> None:
        """From here on these media are surely met again; what is known of others counts to the bound."""
        self._only = only
        known, self._known = self._known, {}
        self._keep(known)

    def of(self, batch: Batch) -> Features:
        """The features of the batch's media. Counts ``feature_hits`` for each that came from the disk."""
        found = {name: kept for name in batch.media if (kept := self._remembered(name)) is not None}
        found |= self._read((name for name in batch.media if name not in found), batch.grids.device)
        found |= self._computed(batch, [i for i, name in enumerate(batch.media) if name not in found])
        self._keep(found)
        media = [found[name] for name in batch.media]
        return Features(
            [one.map for one in media], _by_layer([one.layers for one in media]), _by_layer([one.taps for one in media])
        )

    def _remembered(self, name: str) -> MediumFeatures | None:
        return self._known.get(name) or self._past.get(name)

    def _read(self, names: Iterable[str], device: torch.device) -> dict[str, MediumFeatures]:
        if self.store is None:
            return {}
        found = {name: read.to(device) for name in names if (read := self.store.take(name)) is not None}
        count("feature_hits", len(found))
        return found

    @torch.no_grad()
    def _computed(self, batch: Batch, missing: list[int]) -> dict[str, MediumFeatures]:
        if not missing:
            return {}
        new = self.vision(select_media(batch, missing))
        layers, taps = _by_medium(new.layers, len(missing)), _by_medium(new.taps, len(missing))
        found = {
            batch.media[i]: MediumFeatures(*each)
            for i, each in zip(missing, zip(new.maps, layers, taps, strict=True), strict=True)
        }
        if self.store is not None:
            for name, features in found.items():
                self.store.put(name, features)
        return found

    def _keep(self, found: dict[str, MediumFeatures]) -> None:
        for name, features in found.items():
            if self._only is None or name in self._only:
                self._known[name] = features
            elif features.nbytes <= self._past.max_bytes and self._past.get(name) is None:
                self._past.put(name, features.alone(), features.nbytes)


def _by_layer(media: Sequence[Sequence[Tensor]]) -> list[list[Tensor]]:
    """For each medium its layers -> for each layer its media."""
    return [list(layer) for layer in zip(*media, strict=True)]


def _by_medium(layers: Sequence[Sequence[Tensor]], media: int) -> list[tuple[Tensor, ...]]:
    """For each layer its media -> for each medium its layers."""
    return [tuple(layer[i] for layer in layers) for i in range(media)]


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
