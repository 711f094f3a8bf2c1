"""Blinded items: what a model scores without the picture, the words, the region or the order of frames or words.

A score that a blinded query, or a blinded corpus, reaches too was not earned by looking. Controls of regions give
another region instead, or the same one in another form.
"""

import io
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TypeAlias, TypeVar

import PIL.Image

from mmembed.evaluation.region_forms import REGION_WORDS, apart, cropped, in_form, moved
from mmembed.items import Image, Item, Media, Page, Part, Region, Video, source_fingerprint
from mmembed.media.decode import decode
from mmembed.media.images import picture_size
from mmembed.media.regions import without_regions
from mmembed.media.settings import MediaSettings

T = TypeVar("T")


@dataclass(frozen=True)
class Around:
    """What a blinding may look at besides its item.

    Args:
        media: how media are decoded.
        items: all items of the task's side by id, among them the one at hand.
        region_words: tell a box, see :func:`mmembed.evaluation.region_forms.in_words`.
    """

    media: MediaSettings = field(default_factory=MediaSettings)
    items: Mapping[str, Item] = field(default_factory=dict)
    region_words: str = REGION_WORDS

    @cached_property
    def regions_of(self) -> dict[str, dict[str, tuple[Region, ...]]]:
        """For each picture that is pointed into, what the items point at in it, each once and by its name."""
        found: dict[str, dict[str, tuple[Region, ...]]] = {}
        for part in (part for item in self.items.values() for part in item.content):
            if isinstance(part, Image) and part.regions:
                found.setdefault(source_fingerprint(part.source), {})[part.fingerprint()] = part.regions
        return found


Blind: TypeAlias = Callable[[Item, str, Around], Item]
"""Takes an item, its id (the seed) and what is around it; gives the blinded item, the same one every time."""

GREY = (128, 128, 128)
WHITE = (255, 255, 255)
NOTHING: tuple[Part, ...] = (" ",)
"""Content of an item from which everything was taken: an Item has to hold something."""


def grey_image(item: Item, item_id: str, around: Around) -> Item:
    """Every picture, page and frame replaced by uniform grey of its size; regions stay where they were."""
    parts = (part if isinstance(part, str) else _uniform(part, GREY, around.media) for part in item.content)
    return replace(item, content=tuple(parts))


def blank_page(item: Item, item_id: str, around: Around) -> Item:
    """Every page replaced by white paper of its size."""
    parts = (_uniform(part, WHITE, around.media) if isinstance(part, Page) else part for part in item.content)
    return replace(item, content=tuple(parts))


def no_image(item: Item, item_id: str, around: Around) -> Item:
    """The item without its pictures, clips and pages; a blank where it has no text."""
    return replace(item, content=tuple(part for part in item.content if isinstance(part, str)) or NOTHING)


def no_text(item: Item, item_id: str, around: Around) -> Item:
    """The item without its texts; the words that say the task stay, and a blank where it has no medium."""
    return replace(item, content=item.media or NOTHING)


def no_region(item: Item, item_id: str, around: Around) -> Item:
    """The pictures without the places pointed at."""
    return without_regions(item)


def shuffle_words(item: Item, item_id: str, around: Around) -> Item:
    """The words of each text in another order, where they can have another; the instruction is left alone."""

    def shuffle(place: int, part: Part) -> Part:
        return " ".join(_another_order(part.split(), f"words {item_id} {place}")) if isinstance(part, str) else part

    return replace(item, content=tuple(shuffle(place, part) for place, part in enumerate(item.content)))


def no_instruction(item: Item, item_id: str, around: Around) -> Item:
    """The item without the words that say the task."""
    return replace(item, instruction=None)


def shuffle_frames(item: Item, item_id: str, around: Around) -> Item:
    """The frames of each clip in another order, and no others than it would have shown."""

    def shuffle(place: int, part: Part) -> Part:
        if not isinstance(part, Video):
            return part
        pictures = decode(part, around.media).pictures
        order = _another_order(range(len(pictures)), f"frames {item_id} {place}")
        return _clip_of([pictures[i] for i in order])

    return replace(item, content=tuple(shuffle(place, part) for place, part in enumerate(item.content)))


def shuffled_region(item: Item, item_id: str, around: Around) -> Item:
    """Each region elsewhere in its picture, as large as before, and apart from where it was if there is room."""

    def move(place: int, part: Part) -> Part:
        if not isinstance(part, Image) or not part.regions:
            return part
        return moved(part, f"region {item_id} {place}", around.media)

    return replace(item, content=tuple(move(place, part) for place, part in enumerate(item.content)))


def wrong_region(item: Item, item_id: str, around: Around) -> Item:
    """What another item points at in the same picture, and not nearly in the same place.

    Where nothing does, the region is moved as by :func:`shuffled_region`.
    """

    def swap(place: int, part: Part) -> Part:
        if not isinstance(part, Image) or not part.regions:
            return part
        there = around.regions_of.get(source_fingerprint(part.source), {})
        size = picture_size(part, around.media)
        others = [regions for _, regions in sorted(there.items()) if apart(part.regions, regions, size)]
        if not others:
            return moved(part, f"region {item_id} {place}", around.media)
        return replace(part, regions=random.Random(f"wrong region {item_id} {place}").choice(others))

    return replace(item, content=tuple(swap(place, part) for place, part in enumerate(item.content)))


def crop(item: Item, item_id: str, around: Around) -> Item:
    """The pictures cut to their one region, nothing around it."""
    return cropped(item, around.media)


def coordinates(item: Item, item_id: str, around: Around) -> Item:
    """The regions told in words only."""
    return in_form(item, "words", around.region_words, around.media)


BLINDS: dict[str, Blind] = {
    "grey_image": grey_image,
    "blank_page": blank_page,
    "shuffle_words": shuffle_words,
    "shuffle_frames": shuffle_frames,
    "no_instruction": no_instruction,
    "no_image": no_image,
    "no_text": no_text,
    "no_region": no_region,
    "shuffled_region": shuffled_region,
    "wrong_region": wrong_region,
    "crop": crop,
    "coordinates": coordinates,
}


def _uniform(medium: Media, colour: tuple[int, int, int], media: MediaSettings) -> Media:
    """A picture or clip of one colour, as large and as long as the medium; the regions of a picture stay."""
    # regions are in pixels of the picture as it is, not of a square made of it
    whole = replace(media, square=None, draft_pixels=None)
    pictures = [_uniform_png(picture.size, colour) for picture in decode(medium, whole).pictures]
    if isinstance(medium, Video):
        return _clip_of(pictures)
    return Image(pictures[0], medium.regions if isinstance(medium, Image) else ())


def _another_order(things: Sequence[T], seed: str) -> list[T]:
    """A permutation drawn by ``seed`` that reads differently from ``things``, unless they are all alike."""
    shuffled = random.Random(seed).sample(things, len(things))
    if shuffled == list(things):
        other = next((i for i, thing in enumerate(shuffled) if thing != shuffled[0]), 0)
        shuffled[0], shuffled[other] = shuffled[other], shuffled[0]
    return shuffled


def _clip_of(frames: "Sequence[bytes | PIL.Image.Image]") -> Video:
    # the count is pinned, so that no sampler thins the frames a second time
    return Video(tuple(frames), num_frames=len(frames))


def _uniform_png(size: tuple[int, int], colour: tuple[int, int, int]) -> bytes:
    """A picture as a file in memory: some hundred bytes where pixels would take megabytes."""
    file = io.BytesIO()
    PIL.Image.new("RGB", size, colour).save(file, "PNG")
    return file.getvalue()
