"""Pictures with regions, and the families whose features lie on a map of their picture."""

import numpy as np

from mmembed import Image, Item, Region
from tests.cases import draw
from tests.families import FAMILIES

MAPPED = ["qwen2_vl", "qwen2_5_vl", "qwen3_vl", "llava_next", "llava_onevision", "llava", "phi3_v"]
SIZES = [(168, 112), (112, 280), (196, 196), (301, 97), (60, 84), (33, 35)]


def marked(size, *regions, text="describe", seed=0):
    """A drawn picture with regions, and a text."""
    return Item((Image(draw(*size, seed), regions), text))


def full_mask(width, height):
    """All of a picture as a mask."""
    return Region(mask=np.ones((height, width), dtype=bool))


def random_mask(width, height, seed=0):
    """A mask of scattered pixels, none in the upper left quarter."""
    mask = np.random.default_rng(seed).random((height, width)) > 0.7
    mask[: height // 2, : width // 2] = False
    return Region(mask=mask)


def mixed_items(architecture):
    """What a family takes without regions, then pictures with a box, with points and a mask, and beside another."""
    return [
        *FAMILIES[architecture].items,
        marked((84, 56), Region(box=(3, 4, 50, 40))),
        marked((84, 56), Region(points=((30, 30, 1), (50, 5, 0))), random_mask(84, 56)),
        marked((56, 112), random_mask(56, 112), text="the same, but blue"),
        Item((Image(draw(56, 56)), "or", Image(draw(112, 56), (Region(box=(50, 1, 112, 56)),)))),
    ]
