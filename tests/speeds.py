"""Embedders with everything on that is computed faster, and with everything off."""

from contextlib import contextmanager
from dataclasses import replace

from mmembed.models.settings import Speed

OFF = Speed(packing="off", last_layer="all", sort=False, deduplicate=False, patch_products=False)


def all_on(embedder):
    """All that the embedder can do and that moves a vector by rounding at most; but nothing is compiled."""
    return Speed(packing="on" if embedder.backbone.unpackable() is None else "auto", last_layer="auto")


@contextmanager
def at_speed(embedder, speed):
    """The embedder under another choice while the block runs, for tests share embedders."""
    before = embedder.settings
    embedder.settings, embedder.backbone.speed = replace(before, speed=speed), speed
    try:
        yield embedder
    finally:
        embedder.settings, embedder.backbone.speed = before, before.speed
