"""How the demo's scenes are asked for and answered: queries, targets, questions, regions and changes."""

import random
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import TypeAlias

from data_prep.demo_scenes import COLOURS, HEIGHTS, NUM_FRAMES, SIDES, SIZE, Scene, Sheet, Thing, in_words
from mmembed.items import Box, Image, Item, Page, Region, Video
from mmembed.media.regions import clip_box

DESCRIBE = "describe the image"
REPRESENT = "represent the image"
FIND = "find the image :"
MOTION = "describe the motion in the video"
REPRESENT_CLIP = "represent the video"
FIND_CLIP = "find the video :"
NAME = "what is here ?"
REPRESENT_PAGE = "represent the page"
FIND_PAGE = "find the page :"
DESCRIBE_CHANGED = "describe the changed image :"
FIND_CHANGED = "find the changed image :"

PAGE_DPI = 72
"""A point of a page becomes a pixel."""
BOX_SLACK = 1
"""Pixels by which each side of a box may miss its object."""
POINT_REACH = 2
"""Pixels between a point and the middle of its object, so few that it is on a cross too."""

Shot: TypeAlias = tuple[Scene, Path]
"""A scene and its file."""
Leaf: TypeAlias = tuple[Sheet, Path, int]
"""What a page shows, its document, and its number there from 1."""


def image_query(shot: Shot) -> Item:
    """A picture to be described."""
    return Item.of({"image": shot[1], "instruction": DESCRIBE})


def image_target(path: Path) -> Item:
    """A picture to be found."""
    return Item.of({"image": path, "instruction": REPRESENT})


def image_words(scene: Scene) -> Item:
    """Words that look for a picture."""
    return Item.of(scene.caption, FIND)


def questions(scene: Scene) -> list[tuple[str, str]]:
    """What may be asked of a picture, with the answers."""
    if len(scene.objects) == 1:
        return [(f"what {kind} is the object ?", scene.objects[0][i]) for i, kind in enumerate(("colour", "shape"))]
    return [
        (f"what {kind} is the {side} object ?", scene.objects[where][i])
        for (where, side), (i, kind) in product(enumerate(SIDES), enumerate(("colour", "shape")))
    ]


def told(rng: random.Random, scene: Scene) -> str:
    """Words that are true of a picture and say only the colour or the shape of one of its two objects."""
    place = rng.randrange(len(scene.objects))
    colour, shape = scene.objects[place]
    return f"the {SIDES[place]} object is {rng.choice((colour, f'a {shape}'))}"


def question_query(shot: Shot, question: str) -> Item:
    """A picture and a question about it."""
    return Item.of({"image": shot[1], "instruction": question})


def clip_query(shot: Shot) -> Item:
    """A clip to be described."""
    return _clip(shot[1], MOTION)


def clip_target(path: Path) -> Item:
    """A clip to be found."""
    return _clip(path, REPRESENT_CLIP)


def clip_words(scene: Scene) -> Item:
    """Words that look for a clip."""
    return Item.of(scene.caption, FIND_CLIP)


def regions(rng: random.Random, scene: Scene) -> Iterator[tuple[Region, str]]:
    """A place on each object, by a box around it or by a point inside it, and what is there."""
    for thing, box in zip(scene.objects, scene.boxes, strict=True):
        yield rng.choice((_box_around, _point_inside))(rng, box), in_words(thing)


def region_query(shot: Shot, region: Region) -> Item:
    """A picture with a place in it, to be named."""
    return Item((Image(shot[1], (region,)),), instruction=NAME, verbatim=False)


def page_target(leaf: Leaf) -> Item:
    """A page to be found."""
    return _page(leaf, REPRESENT_PAGE)


def page_words(sheet: Sheet) -> Item:
    """Words that look for a page."""
    return Item.of(sheet.caption, FIND_PAGE)


def page_questions(sheet: Sheet) -> list[tuple[str, str]]:
    """What may be asked of a page, with the answers."""
    return [(f"what is the {place} word ?", word) for place, word in zip(HEIGHTS, sheet.words, strict=True)]


def page_query(leaf: Leaf, question: str) -> Item:
    """A page and a question about it."""
    return _page(leaf, question)


def change(rng: random.Random, objects: tuple[Thing, ...]) -> tuple[str, tuple[Thing, ...]]:
    """Another colour for one of the objects: the change in words, and the objects after it."""
    place = rng.randrange(len(objects))
    colour, shape = objects[place]
    wanted = rng.choice([other for other in COLOURS if other != colour])
    which = f"the {SIDES[place]} object" if len(objects) == 2 else "the object"
    return f"make {which} {wanted}", (*objects[:place], (wanted, shape), *objects[place + 1 :])


def changed_query(shot: Shot, words: str) -> Item:
    """A picture and a change, to be described as it would be afterwards."""
    return Item.of({"image": shot[1], "text": words, "instruction": DESCRIBE_CHANGED})


def composed_query(shot: Shot, words: str) -> Item:
    """A picture and a change, which look for a picture of the changed scene."""
    return Item.of({"image": shot[1], "text": words, "instruction": FIND_CHANGED})


def _clip(path: Path, instruction: str) -> Item:
    return Item((Video(path, num_frames=NUM_FRAMES),), instruction=instruction, verbatim=False)


def _page(leaf: Leaf, instruction: str) -> Item:
    _, path, number = leaf
    return Item((Page(path, number, PAGE_DPI),), instruction=instruction, verbatim=False)


def _box_around(rng: random.Random, box: Box) -> Region:
    x0, y0, x1, y1 = (side + rng.randint(-BOX_SLACK, BOX_SLACK) for side in box)
    return Region(box=clip_box((x0, y0, x1, y1), *SIZE))


def _point_inside(rng: random.Random, box: Box) -> Region:
    x, y = ((box[i] + box[i + 2]) // 2 + rng.randint(-POINT_REACH, POINT_REACH) for i in (0, 1))
    return Region(points=((x, y, 1),))
