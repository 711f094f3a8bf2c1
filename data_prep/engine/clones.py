"""Repositories of a source: local copies laid out as upstream, or what is downloaded from the Hub as it is needed."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from data_prep.engine.fetch import HubClone, check_sha256
from mmembed.errors import InputError

RAW = "raw"
"""Folder below the data root that downloads lie in, as ``raw/owner/name``."""


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
    """Where the repositories of a source are taken from.

    Args:
        data_root: downloads come to lie below it.
        copies: folder of local copies; None downloads.
        only: the repository that all of it needs, if it needs one alone: ``copies`` may then be its copy.
    """

    data_root: Path
    copies: Path | None = None
    only: str | None = None

    def open(self, repo: str, revision: str | None) -> Clone:
        """The clone of a repository.

        Raises:
            InputError: no copy of it lies below ``copies``, or one of another commit than the source pins.
        """
        if self.copies is None:
            return HubClone(repo, self.data_root / RAW / repo, revision)
        places = [self.copies / repo, self.copies / repo.partition("/")[2]]
        if repo == self.only:
            places.append(self.copies)
        for place in places:
            if place.is_dir():
                commit = commit_of(place)
                if commit and revision and not commit.startswith(revision):
                    remedy = "get that commit, or correct revision of the source"
                    raise InputError(place, expected=f"commit {revision} of {repo}", got=commit, remedy=remedy)
                return LocalClone(repo, place.absolute(), commit)
        expected = f"a copy of {repo} at {places[0]} or {places[1]}"
        raise InputError("--source", expected=expected, got="no such folder", remedy="copy it there, or leave it out")


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
