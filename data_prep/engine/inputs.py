"""What a set was made from: the files of each repository, as they lay there."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from data_prep.engine.clones import Clone, LocalClone, Repositories
from data_prep.engine.media_tree import Found
from data_prep.source import SourceSet
from mmembed.errors import InputError


def inputs_of(clone: Clone, names: Mapping[str, Iterable[str]], media: Iterable[Found]) -> dict[str, Any]:
    """The repositories of a set, with the files that decide what it becomes.

    Args:
        clone: the repository of the rows.
        names: files of the rows, by part.
        media: what the media are made of.
    """
    inputs: dict[str, Any] = {}
    asked = [(clone, tuple(name for files in names.values() for name in files))]
    for used, files in (*asked, *((found.clone, found.archives) for found in media)):
        local = isinstance(used, LocalClone)
        said = inputs.setdefault(
            used.repo, {"revision": used.revision, "copy": str(used.folder) if local else None, "files": {}}
        )
        said["files"].update({name: _state(used.folder / name) for name in files})
    return inputs


def changed_inputs(row: SourceSet, inputs: Mapping[str, Any], repositories: Repositories) -> bool:
    """Whether repositories are others than those that a set was made from, or changed since."""
    pins = {media.repo: media.revision for media in row.media if media.repo}
    for repo, said in inputs.items():
        try:
            clone = repositories.of(row) if repo == row.origin else repositories.open(repo, pins.get(repo))
        except InputError:
            # preparing it says why
            return True
        if isinstance(clone, LocalClone):
            states = {name: _state(clone.folder / name) for name in said["files"]}
            changed = str(clone.folder) != said["copy"] or states != said["files"]
        else:
            changed = said["copy"] is not None or clone.revision != said["revision"]
        if changed:
            return True
    return False


def _state(path: Path) -> list[int]:
    if not path.is_file():
        return []
    return [path.stat().st_size, path.stat().st_mtime_ns]
