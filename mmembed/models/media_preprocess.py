"""What every preprocessor does with the media of an item: decode them once, prepare and keep them, mind their regions.

CPU only and picklable. A family says how it prepares a medium.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import PIL.Image
from PIL.Image import Image as Picture
from torch import Tensor

from mmembed.errors import InputError
from mmembed.files import fingerprint
from mmembed.items import Image, Item, Media, Region, Video
from mmembed.media.decode import decode
from mmembed.media.regions import scale_regions, without_regions
from mmembed.media.video import Frames
from mmembed.models.media_cache import MediaCache
from mmembed.models.region_encoders.preparer import RegionPreparer
from mmembed.models.sequence import PreparedMedium
from mmembed.models.settings import BackboneSettings, PromptStyle

FILLER_SIDE = 56
"""Side in pixels of a filler's picture."""


@dataclass(frozen=True)
class Prepared:
    """A medium ready to be placed in a prompt.

    Args:
        medium: its pixels.
        words: the text that stands for it, one placeholder or several.
        pads: tokens that each placeholder in ``words`` stands for.
        grid: its tokens in time, height and width, where positions follow them (M-RoPE).
        time_step: positions between two steps in time.
        size: width and height that coordinates of regions are relative to.
    """

    medium: PreparedMedium
    words: str
    pads: tuple[int, ...]
    grid: tuple[int, int, int] | None = None
    time_step: float = 1.0
    size: tuple[int, int] = (0, 0)


class MediaPreprocessor:
    """What every preprocessor does with the media of an item: decode them once, and say where regions are.

    Args:
        settings: of the backbone.
        prompt: how items are written.
        regions: how regions of pictures are told; None refuses them.
    """

    takes_video: ClassVar[bool] = True
    pixel_settings: ClassVar[tuple[str, ...]] = ()
    """Names of the settings that a prepared medium depends on besides its content."""

    def __init__(self, settings: BackboneSettings, prompt: PromptStyle, regions: RegionPreparer | None) -> None:
        self.settings: Any = settings
        self.prompt = prompt
        self.regions = regions
        self.cache: MediaCache | None = None
        self._preprocessing = repr([getattr(settings, name) for name in self.pixel_settings])

    def prepare(self, medium: Media, frames: Frames, name: str) -> Prepared:
        """Resize and cut a decoded medium; ``name`` is the fingerprint of what comes out."""
        raise NotImplementedError

    def refuse_unread(self, medium: Media) -> None:
        """Refuse a medium that the model has no input for.

        Raises:
            InputError: its kind is named.
        """
        if isinstance(medium, Video) and not self.takes_video:
            raise InputError(
                "item.video", expected="text and pictures: this model has no input for video", got="a video",
                remedy="give some of its frames as pictures, or take a model that reads video",
            )  # fmt: skip

    def filler_picture(self) -> Image:
        """A small picture for which every part of the model runs, with a region where there is an encoder."""
        regions = () if self.regions is None else (Region(box=(0, 0, FILLER_SIDE, FILLER_SIDE)),)
        return Image(PIL.Image.new("RGB", (FILLER_SIDE, FILLER_SIDE)), regions)

    def _prepare(self, medium: Media) -> Prepared:
        self.refuse_unread(medium)
        return self._kept(medium, medium.fingerprint(), self.prepare)

    def _kept(self, medium: Media, key: str, prepare: Callable[[Media, Frames, str], Prepared]) -> Prepared:
        """What ``prepare`` makes of a medium, kept in memory under ``key``."""
        found = self.cache.get(key) if self.cache is not None else None
        if found is None:
            found = self._decoded(medium, key, prepare)
            if self.cache is not None:
                self.cache.put(key, found, found.medium.nbytes)
        return found

    def _decoded(self, medium: Media, key: str, prepare: Callable[[Media, Frames, str], Prepared]) -> Prepared:
        frames = decode(medium, self.settings.media, None if self.regions is None else self.regions.redraw)
        name = fingerprint(key, self._preprocessing)
        found = prepare(medium, frames, name)
        if self.regions is not None:

            def cut(picture: Picture) -> Tensor:
                return prepare(medium, replace(frames, pictures=(picture,)), name).medium.pixels

            shown = medium
            if isinstance(medium, Image):
                shown = scale_regions(medium, frames.size, frames.pictures[0].size)
            whole = self.regions.complete(found.medium, shown, frames.pictures[0], cut)
            found = replace(found, medium=whole)
        return replace(found, size=frames.size)

    def _seen(self, item: Item) -> Item:
        """The item with the regions of its pictures only where their pixels depend on them.

        Raises:
            InputError: regions, and no encoder to tell them.
        """
        marked = [medium for medium in item.media if isinstance(medium, Image) and medium.regions]
        if marked and self.regions is None:
            raise InputError(
                "image.regions", expected="no regions: this model has no region encoder", got=len(marked[0].regions),
                remedy="set regions of the embedder, crop the picture, or say in words where to look",
            )  # fmt: skip
        return item if self.regions is not None and self.regions.changes_pixels else without_regions(item)

    def _region_words(self, item: Item, prepared: Sequence[Prepared]) -> list[str]:
        """For each medium the words that tell its regions."""
        told = zip(item.media, prepared, strict=True)
        return [
            self.regions.words(medium, p.size)
            if self.regions is not None and isinstance(medium, Image) and medium.regions
            else ""
            for medium, p in told
        ]
