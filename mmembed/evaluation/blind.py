"""Blinded items: what a model scores without the picture, the words, the region or the order of frames or words.

A score that a blinded query, or a blinded corpus, reaches too was not earned by looking.
"""

import io
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeAlias, TypeVar

import PIL.Image

from mmembed.items import Image, Item, Media, Page, Part, Video
from mmembed.media.decode import decode
from mmembed.media.settings import MediaSettings
from mmembed.models.region_encoders import without_regions

T = TypeVar("T")
Blind: TypeAlias = Callable[[Item, str, MediaSettings], Item]
"""Takes an item, its id (the seed) and how media are decoded; gives the blinded item, the same one every time."""

GREY = (128, 128, 128)
WHITE = (255, 255, 255)
NOTHING: tuple[Part, ...] = (" ",)
"""Content of an item from which everything was taken: an Item has to hold something."""


def grey_image(item: Item, item_id: str, media: MediaSettings) -> Item:
    """Every picture, page and frame replaced by uniform grey of its size; regions stay where they were."""
    parts = (part if isinstance(part, str) else _uniform(part, GREY, media) for part in item.content)
    return replace(item, content=tuple(parts))


def blank_page(item: Item, item_id: str, media: MediaSettings) -> Item:
    """Every page replaced by white paper of its size."""
    parts = (_uniform(part, WHITE, media) if isinstance(part, Page) else part for part in item.content)
    return replace(item, content=tuple(parts))


def no_image(item: Item, item_id: str, media: MediaSettings) -> Item:
    """The item without its pictures, clips and pages; a blank where it has no text."""
    return replace(item, content=tuple(part for part in item.content if isinstance(part, str)) or NOTHING)


def no_text(item: Item, item_id: str, media: MediaSettings) -> Item:
    """The item without its texts; the words that say the task stay, and a blank where it has no medium."""
    return replace(item, content=item.media or NOTHING)


def no_region(item: Item, item_id: str, media: MediaSettings) -> Item:
    """The pictures without the places pointed at."""
    return without_regions(item)


def shuffle_words(item: Item, item_id: str, media: MediaSettings) -> Item:
    """The words of each text in another order, where they can have another; the instruction is left alone."""

    def shuffle(place: int, part: Part) -> Part:
        return " ".join(_another_order(part.split(), f"words {item_id} {place}")) if isinstance(part, str) else part

    return replace(item, content=tuple(shuffle(place, part) for place, part in enumerate(item.content)))


def no_instruction(item: Item, item_id: str, media: MediaSettings) -> Item:
    """The item without the words that say the task."""
    return replace(item, instruction=None)


def shuffle_frames(item: Item, item_id: str, media: MediaSettings) -> Item:
    """The frames of each clip in another order, and no others than it would have shown."""

    def shuffle(place: int, part: Part) -> Part:
        if not isinstance(part, Video):
            return part
        pictures = decode(part, media).pictures
        order = _another_order(range(len(pictures)), f"frames {item_id} {place}")
        return _clip_of([pictures[i] for i in order])

    return replace(item, content=tuple(shuffle(place, part) for place, part in enumerate(item.content)))


BLINDS: dict[str, Blind] = {
    "grey_image": grey_image,
    "blank_page": blank_page,
    "shuffle_words": shuffle_words,
    "shuffle_frames": shuffle_frames,
    "no_instruction": no_instruction,
    "no_image": no_image,
    "no_text": no_text,
    "no_region": no_region,
}


def _uniform(medium: Media, colour: tuple[int, int, int], media: MediaSettings) -> Media:
    """A picture or clip of one colour, as large and as long as the medium; the regions of a picture stay."""
    pictures = [_uniform_png(picture.size, colour) for picture in decode(medium, media).pictures]
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
