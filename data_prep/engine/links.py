"""A tree of links: folders that lie elsewhere appear in it, laid over each other."""

import filecmp
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from mmembed.errors import InputError

MADE = "made"
"""Folder of the tree that is no link: what converters write."""


def link(layer: Path, target: Path, tree: Path, replaced: list[Path] | None = None) -> None:
    """Make what lies below ``layer`` appear below ``target``, with as few links as possible.

    Where something is there already, folders are laid over each other.

    Args:
        layer: a folder.
        target: a folder below ``tree``, or ``tree`` itself.
        tree: the media folder of a source, two folders below which links stay relative: ``data_root/source/media``.
        replaced: takes the files whose places the layer took; None takes no other file's place.

    Raises:
        InputError: both have a file of one name, and they differ.
    """
    within = tree.parent.parent.resolve()
    steps = target.relative_to(tree).parts
    folders = [tree.joinpath(*steps[:depth]) for depth in range(len(steps) + (not steps))]
    for folder in folders:
        _open_up(folder, within)
        folder.mkdir(parents=True, exist_ok=True)
    _lay(layer, target, within, replaced)


def prune(tree: Path, layers: Iterable[Path]) -> None:
    """Take out the links that lead to none of these layers, and folders that are empty then."""
    kept = [folder for layer in layers for folder in dict.fromkeys((layer.absolute(), layer.resolve()))]
    for path in list(tree.iterdir()) if tree.is_dir() else ():
        if path.name != MADE:
            _prune(path, kept)


def _prune(path: Path, kept: list[Path]) -> None:
    if path.is_symlink():
        if not any(_led_to(path).is_relative_to(layer) for layer in kept):
            path.unlink()
    elif path.is_dir():
        for entry in list(path.iterdir()):
            _prune(entry, kept)
        if not any(path.iterdir()):
            path.rmdir()


def _lay(layer: Path, target: Path, within: Path, replaced: list[Path] | None) -> None:
    if target.is_symlink() and (not target.exists() or target.samefile(layer)):
        target.unlink()
    if not target.exists():
        target.symlink_to(_way(layer, target.parent, within))
    elif layer.is_dir() and target.is_dir():
        _open_up(target, within)
        for entry in _visible(layer):
            _lay(entry, target / entry.name, within, replaced)
    elif layer.is_dir() or target.is_dir() or not filecmp.cmp(layer, target, shallow=False):
        if replaced is None or not target.is_symlink():
            got = f"'{layer}' and '{target.resolve()}', which differ"
            remedy = "prepare it with --overwrite, or take one of the two away"
            raise InputError(target, expected="one file of that name", got=got, remedy=remedy)
        replaced.append(_led_to(target))
        target.unlink()
        target.symlink_to(_way(layer, target.parent, within))


def _open_up(folder: Path, within: Path) -> None:
    """Make a link to a folder a folder of links."""
    if folder.is_symlink():
        layer = _led_to(folder)
        folder.unlink()
        folder.mkdir()
        for entry in _visible(layer) if layer.is_dir() else ():
            (folder / entry.name).symlink_to(_way(entry, folder, within))


def _led_to(path: Path) -> Path:
    """Where a link leads, whatever links lie on the way from there."""
    return Path(os.path.normpath(path.parent.resolve() / path.readlink()))


def _way(layer: Path, folder: Path, within: Path) -> str:
    """Where a link leads: relative inside the data root, which may be moved; else absolute."""
    layer = layer.absolute()
    return os.path.relpath(layer, folder.resolve()) if layer.is_relative_to(within) else str(layer)


def _visible(folder: Path) -> Iterator[Path]:
    return (entry for entry in sorted(folder.iterdir()) if not entry.name.startswith("."))
