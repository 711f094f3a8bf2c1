"""One door to all media: whatever it is, it comes out as RGB pictures."""

from collections.abc import Callable
from dataclasses import replace
from typing import TypeAlias

import PIL.Image

from mmembed import counters
from mmembed.items import Image, Media, Page
from mmembed.media.images import open_image, picture_size
from mmembed.media.pages import render_page
from mmembed.media.settings import MediaSettings
from mmembed.media.video import Frames, load_video
from mmembed.timers import span

Redraw: TypeAlias = Callable[[Image, PIL.Image.Image], PIL.Image.Image]
"""Draws regions into a decoded picture, or cuts it to them."""


def decode(medium: Media, settings: MediaSettings, redraw: Redraw | None = None) -> Frames:
    """The pictures of a medium: one of an image or page (``fps`` 0), several of a video.

    ``redraw`` sees an image with regions before anything else is done to it. Counts ``media_decoded`` once a medium.

    Raises:
        MediaError: it cannot be opened, decoded or trusted.
        InputError: a region or a stretch of time lies outside of it.
    """
    with span("decode"):
        if isinstance(medium, Image):
            frames = _opened(medium, settings, redraw)
        elif isinstance(medium, Page):
            frames = _still(render_page(medium, settings))
        else:
            frames = load_video(medium, settings)
    counters.count("media_decoded")
    return frames if settings.square is None else _squared(frames, settings.square)


def _opened(image: Image, settings: MediaSettings, redraw: Redraw | None) -> Frames:
    picture = open_image(image, settings, draft_pixels=settings.draft_pixels)
    if image.regions:
        return _still(redraw(image, picture) if redraw is not None else picture)
    whole = None if settings.draft_pixels is None else picture_size(image, settings)
    return replace(_still(picture), original_size=whole)


def _squared(frames: Frames, side: int) -> Frames:
    # Pillow's default filter, as in the published code
    squares = tuple(picture.resize((side, side)) for picture in frames.pictures)
    return replace(frames, pictures=squares, original_size=frames.size)


def _still(picture: PIL.Image.Image) -> Frames:
    return Frames((picture,), (0,), 0.0)
