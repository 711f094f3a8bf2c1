"""What is embedded: Item, its media and regions, and the Pair that training learns from.

Nothing here opens a picture or imports torch. An Item says *what*; `mmembed.media` decodes it and
`mmembed.models.prompts` decides how it is written for a backbone.
"""

from mmembed.items.item import Item, ItemLike, Part
from mmembed.items.joins import JOINS, joined
from mmembed.items.layout import SLOTS, check_layout, pieces_of
from mmembed.items.media import (
    IMAGE_SUFFIXES,
    Box,
    Image,
    ImageSource,
    Media,
    Page,
    Point,
    Region,
    Video,
    VideoSource,
    frame_files,
    natural_key,
    source_fingerprint,
)
from mmembed.items.pair import Negative, Pair

__all__ = [
    "IMAGE_SUFFIXES",
    "JOINS",
    "SLOTS",
    "Box",
    "Image",
    "ImageSource",
    "Item",
    "ItemLike",
    "Media",
    "Negative",
    "Page",
    "Pair",
    "Part",
    "Point",
    "Region",
    "Video",
    "VideoSource",
    "check_layout",
    "frame_files",
    "joined",
    "natural_key",
    "pieces_of",
    "source_fingerprint",
]
