"""Clips as folders of frames: those that were published, or frames that are taken of the clips themselves."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from data_prep.converters import Media
from data_prep.extract_frames import CLIP_SUFFIXES, MOST, extract_frames
from mmembed.errors import InputError
from mmembed.items import frame_files


@dataclass(frozen=True)
class Clips:
    """The clips of a set.

    Args:
        media: where they lie.
        frames: folder below the media that holds a folder of frames for each clip; None where none were published.
        clips: folder below the media that holds the clips themselves; None where they were not.
        rule: which frames are taken of a clip, of :data:`data_prep.extract_frames.RULES`.
        most: how many are taken at most.
    """

    media: Media
    frames: str | None = ""
    clips: str | None = ""
    rule: str = "evenly"
    most: int = MOST
    _taken: dict[Path, Path] = field(default_factory=dict, repr=False)
    """The clip of each folder that frames were taken into."""

    def folder(self, name: str, files: Sequence[str] = (), *, where: str) -> Path:
        """The folder of a clip's frames.

        Args:
            name: what the folder is called.
            files: the clip, where it is not the name and ``.mp4``; of several the first that is there counts.
            where: the field that names it, for complaints.

        Raises:
            InputError: no frames are there, nor a clip to take them of; another clip has its name; or a path that
                leaves the media.
        """
        stored = [] if self.frames is None else [_below(self.frames, name)]
        files = [] if self.clips is None else [_below(self.clips, file) for file in files or (f"{name}.mp4",)]
        for path in (self.media.look(place, where) for place in stored):
            if path and has_frames(path):
                return path
        clip = self._clip(files, where)
        if clip is None:
            places = [f"pictures in '{place}'" for place in stored] + [f"the clip '{file}'" for file in files[:1]]
            remedy = "download the media again and unpack their archive, or put the clip there"
            got = f"none in {self.media.folder}"
            raise InputError(where, expected=" or ".join(places), got=got, remedy=remedy)
        return clip if clip.is_dir() else self._frames_of(clip, name, where)

    def _clip(self, files: Sequence[str], where: str) -> Path | None:
        """The clip, also under another suffix; or a folder, where its publisher has its frames in place of it."""
        for file in _with_other_suffixes(files):
            path = self.media.look(file, where)
            if path and (path.is_file() or has_frames(path)):
                return path
        return None

    def _frames_of(self, clip: Path, name: str, where: str) -> Path:
        """Frames of a clip, taken now or for a row before."""
        folder = self.media.make(name, where)
        there = has_frames(folder)
        # a folder without frames is one around those of other clips
        if self._taken.get(folder, clip) != clip or (folder.exists() and not there):
            got = f"'{name}' for '{clip}', and for another"
            raise InputError(where, expected="a name that one clip has", got=got, remedy="mend the row")
        if not there:
            try:
                extract_frames(clip, folder, self.most, self.rule)
            except InputError as error:
                raise error.within(where) from None
        self._taken[folder] = clip
        return folder


def has_frames(path: Path) -> bool:
    """Whether this is a folder of pictures."""
    return path.is_dir() and bool(frame_files(path))


def _below(folder: str, name: str) -> str:
    """A name below a folder; an absolute one stays what it is, and is refused."""
    return str(PurePosixPath(folder, name))


def _with_other_suffixes(files: Sequence[str]) -> Iterator[str]:
    """The files, then the last of them under every other suffix."""
    yield from files
    for file in map(PurePosixPath, files[-1:]):
        if file.suffix.lower() in CLIP_SUFFIXES:
            yield from (str(file.with_suffix(suffix)) for suffix in CLIP_SUFFIXES)
