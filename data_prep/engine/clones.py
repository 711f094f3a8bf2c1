"""Repositories of a source: local copies laid out as upstream, or what is downloaded from the Hub as it is needed."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Protocol

from data_prep.engine.fetch import HubClone, check_sha256
from data_prep.source import SourceSet
from mmembed.errors import InputError

RAW = "raw"
"""Folder below the data root that downloads lie in, as ``raw/owner/name``."""
CLONED_AS = {
    "ShareGPTVideo/train_video_and_instruction": ("video", ("train_300k", "video_instruction")),
    "TIGER-Lab/MMEB-V2": (".", ("image-tasks", "video-tasks")),
}
"""Folder that download_data.sh of VLM2Vec clones a repository into, and folders in it that show that it was this."""

_URL = re.compile(
    r"^\s*url\s*=.*[/@.](?:huggingface\.co|hf\.co)[/:]datasets/([^/\s]+/[^/\s]+?)(?:\.git)?/?\s*$", re.MULTILINE
)


class Clone(Protocol):
    """A repository: which files a pattern fits, and where they lie."""

    @property
    def repo(self) -> str:
        """Its name, ``owner/name``."""
        ...

    @property
    def folder(self) -> Path:
        """Where its files lie."""
        ...

    @property
    def revision(self) -> str:
        """Commit of the files; empty for a local copy that does not say."""
        ...

    def match(self, pattern: str) -> list[str]:
        """Files that a pattern fits, sorted, as paths below the folder."""
        ...

    def get(self, names: Iterable[str]) -> None:
        """See to it that files lie below the folder, whole."""
        ...


@dataclass(frozen=True)
class LocalClone:
    """A copy that somebody made before."""

    repo: str
    folder: Path
    revision: str = ""

    def match(self, pattern: str) -> list[str]:
        """See :class:`Clone`."""
        found = (path for path in self.folder.glob(pattern) if path.is_file())
        return sorted(path.relative_to(self.folder).as_posix() for path in found)

    def get(self, names: Iterable[str]) -> None:
        """See :class:`Clone`: everything lies there."""


@dataclass(frozen=True)
class Repositories:
    """Where the repositories of sources are taken from; each is opened once.

    Args:
        data_root: downloads come to lie below it.
        copies: folders of local copies, the first that has a repository counts; none downloads.
        update: take the newest commit of what no source pins, and not the one that was the newest before.
    """

    data_root: Path
    copies: tuple[Path, ...] = ()
    update: bool = False
    _opened: dict[tuple[str, str | None], Clone] = field(default_factory=dict, repr=False, compare=False)

    def of(self, row: SourceSet) -> Clone:
        """The clone of a set's repository, or the folder that its rows are kept in.

        Raises:
            InputError: no copy of it lies below ``copies``; of a folder it is said where one gets it.
        """
        if row.repo:
            return self.open(row.repo, row.revision)
        named = (copies / name for copies in self.copies for name in row.folders)
        selves = (copies for copies in self.copies if copies.absolute().name in row.folders)
        place = next((place for place in (*named, *selves) if place.is_dir()), None)
        if place is None:
            expected = f"a folder {' or '.join(row.folders)} in one of --source"
            got = ", ".join(map(str, self.copies)) or "no --source"
            remedy = f"{row.obtain or 'it is on no Hub'}; then give the folder around it with --source"
            raise InputError(row.origin, expected=expected, got=got, remedy=remedy)
        return LocalClone(row.origin, place.resolve(), commit_of(place))

    def open(self, repo: str, revision: str | None) -> Clone:
        """The clone of a repository.

        Raises:
            InputError: no copy of it lies below ``copies``, or one of another commit than the source pins.
        """
        if (repo, revision) not in self._opened:
            self._opened[repo, revision] = self._open(repo, revision)
        return self._opened[repo, revision]

    def _open(self, repo: str, revision: str | None) -> Clone:
        if not self.copies:
            return HubClone(repo, self.data_root / RAW / repo, revision, self.update)
        place = next((place for copies in self.copies for place in self._places(repo, copies)), None)
        if place is None:
            places = ", ".join(str(copies / name) for copies in self.copies for name in (repo, repo.partition("/")[2]))
            expected = f"a copy of {repo} at {places}, or a clone of it there under another name"
            remedy = "copy it there, name another folder with a further --source, or leave --source out to download it"
            raise InputError("--source", expected=expected, got="no such folder", remedy=remedy)
        commit = commit_of(place)
        if commit and revision and not commit.startswith(revision):
            remedy = "get that commit, or correct revision of the source"
            raise InputError(place, expected=f"commit {revision} of {repo}", got=commit, remedy=remedy)
        return LocalClone(repo, place.resolve(), commit)

    def _places(self, repo: str, copies: Path) -> Iterator[Path]:
        """Folders that are a copy of a repository, the surest first."""
        name = repo.partition("/")[2]
        yield from (place for place, cloned in self._clones.items() if cloned == repo and place.is_relative_to(copies))
        named = [copies / repo, copies / name, *([copies] if copies.absolute().name == name else [])]
        folder, signs = CLONED_AS.get(repo, ("", ()))
        if any((copies / folder / sign).is_dir() for sign in signs):
            named.append(copies / folder)
        # a folder of that name that is a clone of another repository is none of this
        yield from (place for place in named if place.is_dir() and place not in self._clones)

    @cached_property
    def _clones(self) -> dict[Path, str]:
        """Folders of copies, and those in them, that Git cloned from the Hub, and what they are clones of."""
        inside = (place for copies in self.copies if copies.is_dir() for place in copies.iterdir())
        return {place: repo for place in (*self.copies, *inside) if (repo := cloned_from(place))}


def cloned_from(folder: Path) -> str:
    """The repository of the Hub that Git cloned a folder from; empty where it did not."""
    config = folder / ".git" / "config"
    said = config.read_text(encoding="utf-8", errors="replace") if config.is_file() else ""
    found = _URL.search(said)
    return found[1] if found else ""


def commit_of(folder: Path) -> str:
    """The commit that a local copy is of, where Git or the Hub's client wrote it down; else empty."""
    head = folder / ".git" / "HEAD"
    if head.is_file():
        said = head.read_text(encoding="utf-8").strip()
        if not said.startswith("ref: "):
            return said
        ref = said.removeprefix("ref: ")
        packed = folder / ".git" / "packed-refs"
        if (folder / ".git" / ref).is_file():
            return (folder / ".git" / ref).read_text(encoding="utf-8").strip()
        lines = packed.read_text(encoding="utf-8").splitlines() if packed.is_file() else []
        return next((line.split()[0] for line in lines if line.endswith(f" {ref}")), "")
    # one of the files that the client writes beside each download
    notes = (folder / ".cache" / "huggingface" / "download").rglob("*.metadata")
    return next((note.read_text(encoding="utf-8").partition("\n")[0] for note in notes), "")


def check_published(clone: Clone, names: Iterable[str], sha256: Mapping[str, str]) -> None:
    """Compare files with the checksums that a source names."""
    for name in names:
        if name in sha256:
            check_sha256(clone.folder / name, sha256[name], remove=isinstance(clone, HubClone))
