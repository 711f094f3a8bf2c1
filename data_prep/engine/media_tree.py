"""The media of a source below one folder: archives unpacked once and linked in, folders of media linked as they are."""

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from data_prep.engine.clones import Clone, Repositories, check_published
from data_prep.engine.fetch import HubClone
from data_prep.engine.links import link, prune
from data_prep.engine.lock import locked
from data_prep.engine.manifest import UNPACKED, Entry, flaw_of, read_manifest, record_set
from data_prep.engine.pointers import refuse_pointer
from data_prep.engine.unpack import archives_of, is_archive, is_shown, is_unpacked, refuse_unknown, unpack
from data_prep.source import MediaFiles, Source, SourceSet
from mmembed.errors import InputError


@dataclass(frozen=True)
class Found:
    """What the media of a set are made of.

    Args:
        clone: the repository.
        media: what the source says of them.
        archives: archives to unpack, or their pieces.
        plain: media as they are.
        folder: the folder that they lie below, if they lie unpacked.
    """

    clone: Clone
    media: MediaFiles
    archives: tuple[str, ...]
    plain: tuple[str, ...]
    folder: Path | None


@dataclass(frozen=True)
class Layer:
    """A folder of media that appears in the tree.

    Args:
        repo: repository of the media.
        copy: the clone that they were taken from.
        folder: what lies there: of an archive all that it was unpacked to.
        archive: stamp of the archive; None is media as they are.
        shown: the part of the folder that appears.
        into: folder of the tree that it appears below.
    """

    repo: str
    copy: Path
    folder: Path
    archive: list[Any] | None
    shown: Path
    into: str

    def record(self, data_root: Path) -> Entry:
        """What the manifest keeps of it: paths relative to the data root, which may be moved, where they lie in it."""
        places = {
            name: str(path.relative_to(data_root) if path.is_relative_to(data_root) else path)
            for name, path in (("copy", self.copy), ("folder", self.folder))
        }
        return {"repo": self.repo, **places, "archive": self.archive}


def find_media(row: SourceSet, media: MediaFiles, repositories: Repositories) -> Found:
    """Find the media of a set without downloading or unpacking anything.

    What lies unpacked below ``root`` of a local copy is taken as it is, and archives whose files are not there beside.

    Raises:
        InputError: no file fits and nothing lies unpacked.
    """
    clone = repositories.open(media.repo, media.revision) if media.repo else repositories.of(row)
    folder = clone.folder / _relative(media.root)
    local = not isinstance(clone, HubClone)
    # of a local copy only the archives are looked for: its media may be millions of files
    patterns = [pattern for pattern in media.files if not local or is_archive(pattern.replace("*", "00"))]
    names = list(dict.fromkeys(name for pattern in patterns for name in clone.match(pattern)))
    refuse_unknown(clone.folder, media.files if local else names)
    archives = tuple(name for name in names if is_archive(name))
    plain = tuple(name for name in names if not is_archive(name))
    if local and folder.is_dir():
        inner = folder / _relative(media.strip)
        inner = inner if inner.is_dir() else folder
        if media.root and any(entry.is_dir() for entry in folder.iterdir()):
            return Found(clone, media, _not_shown(clone.folder, archives, inner, media.strip), (), inner)
        if not archives:
            return Found(clone, media, (), (), inner)
    if not names:
        expected = f"media of {row.name}: {', '.join(media.files) or media.root}"
        remedy = row.obtain or "copy or download them, or correct media of the source"
        raise InputError(clone.repo, expected=expected, got=f"none in {clone.folder}", remedy=remedy)
    return Found(clone, media, archives, plain, folder if plain else None)


def _not_shown(clone: Path, names: Sequence[str], folder: Path, strip: str) -> tuple[str, ...]:
    """The archives of which some files do not lie unpacked below a folder."""
    try:
        left = [archive for archive in archives_of(clone, names) if not is_shown(archive, folder, strip)]
    except InputError:
        # some pieces were taken away after unpacking
        return ()
    files = {file for archive in left for file in archive.files}
    return tuple(name for name in names if clone / name in files)


def bring(found: Found, data_root: Path) -> list[Layer]:
    """Download, verify and unpack the media of a set.

    Raises:
        InputError: a download, an archive or a checksum failed.
    """
    clone, media = found.clone, found.media
    _relative(media.into)
    clone.get((*found.archives, *found.plain))
    layers = list[Layer]()
    if found.folder is not None:
        check_published(clone, found.plain, media.sha256)
        layers.append(Layer(clone.repo, clone.folder, found.folder, None, found.folder, media.into))
    for archive in archives_of(clone.folder, found.archives):
        folder = data_root / UNPACKED / clone.repo / archive.name
        for file in archive.files:
            refuse_pointer(file, "an archive")
        with locked(folder.parent):
            if not is_unpacked(archive, folder):
                check_published(clone, (name for name in found.archives if name.startswith(archive.name)), media.sha256)
            unpack(archive, folder)
        inner = folder / _relative(media.strip)
        shown = inner if inner.is_dir() else folder
        layers.append(Layer(clone.repo, clone.folder, folder, archive.stamp(), shown, media.into))
    return layers


def lay(source: Source, name: str, layers: Sequence[Layer], data_root: Path, *, overwrite: bool = False) -> None:
    """Link the media of a set into the tree of its source; those of an earlier copy of the same repositories go.

    Sets whose media go are taken out of the manifest, which is said.

    Args:
        source: the source.
        name: the set.
        layers: its media.
        data_root: where prepared data lie.
        overwrite: whether these media take the place of others of the same names.

    Raises:
        InputError: there are two files of one name, and they differ.
    """
    tree = data_root / source.name / "media"
    copies = {layer.repo: layer.record(data_root)["copy"] for layer in layers}
    mine = {data_root / layer.folder for layer in layers}
    kept = set(mine)
    for other, theirs in _layers_of_sets(data_root, source).items():
        folders = {data_root / layer["folder"] for layer in theirs}
        if any(copies.get(layer["repo"], layer["copy"]) != layer["copy"] for layer in theirs):
            _forget(data_root, source, other, "its media were of another copy", aloud=other != name)
        elif other != name:
            kept |= folders
        elif not folders <= mine:
            _forget(data_root, source, name, "", aloud=False)
    prune(tree, kept)
    for layer in layers:
        replaced: list[Path] | None = [] if overwrite else None
        link(layer.shown, tree / _relative(layer.into), tree, replaced)
        for path in replaced or ():
            _take_place(data_root, source, name, path, mine)


def _layers_of_sets(data_root: Path, source: Source) -> dict[str, list[Entry]]:
    """The media of each set of the manifest; none of those that this version cannot read."""
    sets = read_manifest(data_root, source.name)["sets"]
    return {name: [] if flaw_of(entry) else entry["media"] for name, entry in sets.items()}


def _take_place(data_root: Path, source: Source, name: str, path: Path, mine: Iterable[Path]) -> None:
    """A file of this set was linked in the place of ``path``: the sets that this was of are no longer whole."""
    if any(path.is_relative_to(folder) for folder in mine):
        remedy = "give the media of the source different folders with into"
        raise InputError(path, expected="one file of that name in the set", got="two that differ", remedy=remedy)
    for other, theirs in _layers_of_sets(data_root, source).items():
        if other != name and any(path.is_relative_to(data_root / layer["folder"]) for layer in theirs):
            _forget(data_root, source, other, f"{name} has another file of the name of {path}", aloud=True)


def _forget(data_root: Path, source: Source, name: str, why: str, *, aloud: bool) -> None:
    record_set(data_root, source, name, None)
    if aloud:
        print(f"{source.name}/{name}: {why}; it is to be prepared again", file=sys.stderr)


def _relative(name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise InputError("media", expected="a folder below the media", got=f"'{name}'", remedy="correct the source")
    return path


def names_of(media: Iterable[MediaFiles]) -> tuple[str, ...]:
    """The folders of media below the tree, each once."""
    return tuple(dict.fromkeys(entry.into for entry in media))
