"""Blinded queries: what a model scores without the picture, the word order, the instruction or the order of frames.

A score that a blinded query reaches too was not earned by looking.
"""

import io
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeAlias, TypeVar

import PIL.Image

from mmembed.items import Image, Item, Part, Video
from mmembed.media.decode import decode
from mmembed.media.settings import MediaSettings

T = TypeVar("T")
Blind: TypeAlias = Callable[[Item, str, MediaSettings], Item]
"""Takes a query, its id (the seed) and how media are decoded; gives the blinded query, the same one every time."""

GREY = (128, 128, 128)


def grey_image(query: Item, query_id: str, media: MediaSettings) -> Item:
    """Every picture, page and frame replaced by uniform grey of its size; regions stay where they were."""

    def grey(part: Part) -> Part:
        if isinstance(part, str):
            return part
        pictures = [_uniform_png(picture.size) for picture in decode(part, media).pictures]
        if isinstance(part, Video):
            return _clip_of(pictures)
        return Image(pictures[0], part.regions if isinstance(part, Image) else ())

    return replace(query, content=tuple(grey(part) for part in query.content))


def shuffle_words(query: Item, query_id: str, media: MediaSettings) -> Item:
    """The words of each text in another order, where they can have another; the instruction is left alone."""

    def shuffle(place: int, part: Part) -> Part:
        return " ".join(_another_order(part.split(), f"words {query_id} {place}")) if isinstance(part, str) else part

    return replace(query, content=tuple(shuffle(place, part) for place, part in enumerate(query.content)))


def no_instruction(query: Item, query_id: str, media: MediaSettings) -> Item:
    """The query without the words that say the task."""
    return replace(query, instruction=None)


def shuffle_frames(query: Item, query_id: str, media: MediaSettings) -> Item:
    """The frames of each clip in another order, and no others than it would have shown."""

    def shuffle(place: int, part: Part) -> Part:
        if not isinstance(part, Video):
            return part
        pictures = decode(part, media).pictures
        order = _another_order(range(len(pictures)), f"frames {query_id} {place}")
        return _clip_of([pictures[i] for i in order])

    return replace(query, content=tuple(shuffle(place, part) for place, part in enumerate(query.content)))


BLINDS: dict[str, Blind] = {
    "grey_image": grey_image,
    "shuffle_words": shuffle_words,
    "no_instruction": no_instruction,
    "shuffle_frames": shuffle_frames,
}


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


def _uniform_png(size: tuple[int, int]) -> bytes:
    """A grey picture as a file in memory: some hundred bytes where pixels would take megabytes."""
    file = io.BytesIO()
    PIL.Image.new("RGB", size, GREY).save(file, "PNG")
    return file.getvalue()
