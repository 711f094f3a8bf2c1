"""The media of a source below one folder: archives unpacked once and linked in, folders of media linked as they are."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from data_prep.engine.clones import Clone, Repositories, check_published
from data_prep.engine.fetch import HubClone
from data_prep.engine.lock import locked
from data_prep.engine.manifest import UNPACKED
from data_prep.engine.unpack import archives_of, is_archive, is_unpacked, unpack
from data_prep.source import MediaFiles, SourceSet
from mmembed.errors import InputError


@dataclass(frozen=True)
class Found:
    """What the media of a set are made of.

    Args:
        clone: the repository.
        archives: archives to unpack, or their pieces.
        plain: media as they are.
        folder: the folder that they lie below, if they lie unpacked.
    """

    clone: Clone
    media: MediaFiles
    archives: tuple[str, ...]
    plain: tuple[str, ...]
    folder: Path | None

    @property
    def inputs(self) -> tuple[str, ...]:
        """The files that decide what the media are."""
        return self.archives if self.folder is None else ()


def find_media(row: SourceSet, media: MediaFiles, repositories: Repositories) -> Found:
    """Find the media of a set without downloading or unpacking anything.

    In a local copy what lies unpacked below ``root`` goes before the archives.

    Raises:
        InputError: no file fits and nothing lies unpacked.
    """
    clone = repositories.open(media.repo or row.repo, media.revision if media.repo else row.revision)
    folder = clone.folder / media.root
    local = not isinstance(clone, HubClone)
    if local and media.root and folder.is_dir() and any(entry.is_dir() for entry in folder.iterdir()):
        return Found(clone, media, (), (), folder)
    # of a local copy only the archives are looked for: its media may be millions of files
    patterns = [pattern for pattern in media.files if not local or is_archive(pattern.replace("*", "00"))]
    names = list(dict.fromkeys(name for pattern in patterns for name in clone.match(pattern)))
    archives = tuple(name for name in names if is_archive(name))
    plain = tuple(name for name in names if not is_archive(name))
    if local and not archives and folder.is_dir():
        return Found(clone, media, (), (), folder)
    if not names:
        expected = f"media of {row.name}: {', '.join(media.files) or media.root}"
        remedy = "copy or download them, or correct media of the source"
        raise InputError(clone.repo, expected=expected, got=f"none in {clone.folder}", remedy=remedy)
    return Found(clone, media, archives, plain, folder if plain else None)


def provide(found: Found, tree: Path, data_root: Path) -> list[str]:
    """Bring the media of a set into the tree: download, verify, unpack, link.

    Args:
        found: see :func:`find_media`.
        tree: the media folder of the source.
        data_root: archives are unpacked below it.

    Returns:
        The folders that are linked, relative to the data root where they lie in it.

    Raises:
        InputError: a download, an archive or a checksum failed, or two archives have different files of one name.
    """
    clone, media = found.clone, found.media
    target = tree / _relative(media.into)
    layers = list[Path]()
    clone.get((*found.archives, *found.plain))
    if found.folder is not None:
        check_published(clone, found.plain, media.sha256)
        link(found.folder, target, tree)
        layers.append(found.folder)
    for archive in archives_of(clone.folder, found.archives):
        folder = data_root / UNPACKED / clone.repo / archive.name
        with locked(folder.parent):
            if not is_unpacked(archive, folder):
                check_published(clone, (name for name in found.archives if name.startswith(archive.name)), media.sha256)
            unpack(archive, folder)
        inner = folder / _relative(media.strip)
        link(inner if inner.is_dir() else folder, target, tree)
        layers.append(folder)
    return [str(path.relative_to(data_root) if path.is_relative_to(data_root) else path) for path in layers]


def link(layer: Path, target: Path, tree: Path) -> None:
    """Make what lies below ``layer`` appear below ``target``, with as few links as possible.

    Where something is there already, folders are laid over each other.

    Args:
        layer: a folder.
        target: a folder below ``tree``, or ``tree`` itself.
        tree: the media folder of a source, two folders below which links stay relative: ``data_root/source/media``.

    Raises:
        InputError: both have a file of one name, and they differ in size.
    """
    within = tree.parent.parent.resolve()
    steps = target.relative_to(tree).parts
    folders = [tree.joinpath(*steps[:depth]) for depth in range(len(steps) + (not steps))]
    for folder in folders:
        _open_up(folder, within)
        folder.mkdir(parents=True, exist_ok=True)
    _lay(layer, target, within)


def _lay(layer: Path, target: Path, within: Path) -> None:
    if target.is_symlink() and (not target.exists() or target.samefile(layer)):
        target.unlink()
    if not target.exists():
        target.symlink_to(_way(layer, target.parent, within))
    elif layer.is_dir() and target.is_dir():
        _open_up(target, within)
        for entry in _visible(layer):
            _lay(entry, target / entry.name, within)
    elif layer.is_dir() or target.is_dir() or layer.stat().st_size != target.stat().st_size:
        got = f"'{layer}' and '{target.resolve()}'"
        remedy = "give the media of the source different folders with into"
        raise InputError(target, expected="one file of that name", got=got, remedy=remedy)


def _open_up(folder: Path, within: Path) -> None:
    """Make a link to a folder a folder of links."""
    if folder.is_symlink():
        layer = folder.resolve()
        folder.unlink()
        folder.mkdir()
        for entry in _visible(layer) if layer.is_dir() else ():
            (folder / entry.name).symlink_to(_way(entry, folder, within))


def _way(layer: Path, folder: Path, within: Path) -> str:
    """Where a link leads: relative inside the data root, which may be moved; else absolute."""
    layer, folder = layer.absolute(), folder.resolve()
    return os.path.relpath(layer.resolve(), folder) if layer.resolve().is_relative_to(within) else str(layer)


def _visible(folder: Path) -> Iterator[Path]:
    return (entry for entry in sorted(folder.iterdir()) if not entry.name.startswith("."))


def _shortest(layer: Path, folder: Path) -> str:
    """A link that survives moving the data root, where it can; local copies elsewhere are named absolutely."""
    layer, folder = layer.resolve(), folder.resolve()
    common = Path(os.path.commonpath([layer, folder]))
    return os.path.relpath(layer, folder) if len(common.parts) > 2 else str(layer)


def _relative(name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise InputError("media", expected="a folder below the media", got=f"'{name}'", remedy="correct the source")
    return path


def names_of(media: Iterable[MediaFiles]) -> tuple[str, ...]:
    """The folders of media below the tree, each once."""
    return tuple(dict.fromkeys(entry.into for entry in media))
