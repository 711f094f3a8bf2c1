"""Clips as the video sets store them: a folder of frames each; or the clip, of which frames are taken by their rule."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from data_prep.converters import Media
from data_prep.extract_frames import extract_frames
from data_prep.source import SourceSet
from mmembed.errors import InputError, nearest
from mmembed.items import Item, Video, frame_files

NUM_FRAMES = 8
"""Frames that are embedded of a clip, of up to 64 that are stored (arXiv:2507.04590)."""


@dataclass(frozen=True)
class StoredClips:
    """The clips of a set.

    Args:
        media: where they lie.
        name: the set's name, for complaints.
        frames: folder below the media that holds a folder of frames for each clip; empty where none were published.
        clips: folder below the media that holds the clips themselves, for those without frames; empty where none do.
        rule: which frames are taken of a clip, of :data:`data_prep.extract_frames.RULES`.
    """

    media: Media
    name: str
    frames: str = ""
    clips: str = ""
    rule: str = "evenly"

    @classmethod
    def of(cls, row: SourceSet, media: Media) -> "StoredClips":
        """Those that the set's options name: ``frames``, and ``clips`` and ``frame_rule`` where clips may be there."""
        options = row.options
        return cls(
            media, row.name, options.get("frames", ""), options.get("clips", ""), options.get("frame_rule", "evenly")
        )

    def row(self, number: int, part: str = "") -> str:
        """What complaints call a row."""
        return f"{self.name}: {part and f'{part}: '}row {number}"

    def item(self, name: str, file: str = "", *, text: str = "", where: str) -> Item:
        """A clip as it is embedded, with words beside it.

        Args:
            name: the clip's folder of frames.
            file: the clip's own file, where it is not the name and ``.mp4``.
            text: the words.
            where: what a complaint calls the row.

        Raises:
            InputError: no frames are there, nor a clip to take them of.
        """
        video = Video(self.folder(name, file, where), num_frames=NUM_FRAMES)
        return Item((video, text) if text else (video,), verbatim=False)

    def folder(self, name: str, file: str, where: str) -> Path:
        """The folder of a clip's frames; see :meth:`item`."""
        stored = self._stored(name, where) if self.frames else None
        return stored or self._taken(name, file or f"{name}.mp4", where)

    def _stored(self, name: str, where: str) -> Path | None:
        """Frames that were published; None where a clip may stand in for them."""
        path = f"{self.frames}/{name}"
        try:
            folder = self.media.find(path, where)
            if folder.is_dir() and frame_files(folder):
                return folder
            raise InputError(
                where, expected="a folder of frames", got=f"no pictures in '{path}'",
                remedy="unpack the archive of the frames again",
            )  # fmt: skip
        except InputError:
            if not self.clips:
                raise
            return None

    def _taken(self, name: str, file: str, where: str) -> Path:
        """Frames of a clip, taken now or for a row before; where the clip is a folder of frames, that."""
        clip = self._clip(name, file, where)
        if clip.is_dir():
            return clip
        folder = self.media.made / name
        if folder.is_dir():
            return folder
        try:
            return extract_frames(clip, folder, rule=self.rule)
        except InputError as error:
            raise error.within(where) from None

    def _clip(self, name: str, file: str, where: str) -> Path:
        try:
            return self.media.find(f"{self.clips}/{file}", where)
        except InputError as error:
            if not self.frames:
                raise
            expected = f"frames in '{self.frames}/{name}', or a clip to take them of"
            raise InputError(where, expected=expected, got=error.got, remedy=error.remedy) from None


def text_target(text: str, where: str) -> Callable[[], Item]:
    """What makes a target of words."""

    def make() -> Item:
        try:
            return Item((text,), verbatim=False)
        except InputError as error:
            raise error.within(where) from None

    return make


def answerable(answer: str, options: Collection[str], where: str) -> None:
    """Refuse a row whose right answer is not among its options.

    Raises:
        InputError: with the nearest option.
    """
    if answer not in options:
        raise InputError(where, expected="one of the options", got=f"'{answer}'", remedy=nearest(answer, options))
