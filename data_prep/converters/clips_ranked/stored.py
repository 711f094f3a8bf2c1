"""Clips as the video sets store them: a folder of frames each; or the clip, of which frames are taken by their rule."""

from collections.abc import Collection

from data_prep.converters import Media
from data_prep.converters.frames import Clips
from data_prep.source import SourceSet
from mmembed.errors import InputError, nearest
from mmembed.items import Item, Video

NUM_FRAMES = 8
"""Frames that are embedded of a clip, of up to 64 that are stored (arXiv:2507.04590)."""


def clips_of(row: SourceSet, media: Media) -> Clips:
    """The clips that a set's options name: ``frames``, and ``clips`` and ``frame_rule`` where clips may be there."""
    options = row.options
    return Clips(media, options.get("frames"), options.get("clips"), options.get("frame_rule", "evenly"))


def clip_item(clips: Clips, name: str, *files: str, text: str = "", where: str) -> Item:
    """A clip as it is embedded, with words beside it; see :meth:`data_prep.converters.frames.Clips.folder`."""
    video = Video(clips.folder(name, files, where=where), num_frames=NUM_FRAMES)
    return Item((video, text) if text else (video,), verbatim=False)


def text_item(text: str) -> Item:
    """Words as they are embedded."""
    return Item((text,), verbatim=False)


def answerable(answer: str, options: Collection[str], where: str) -> None:
    """Refuse a row whose right answer is not among its options.

    Raises:
        InputError: with the nearest option.
    """
    if answer not in options:
        raise InputError(where, expected="one of the options", got=f"'{answer}'", remedy=nearest(answer, options))
