"""What a set was made from: the files of each repository, as they lay there."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from data_prep.engine.clones import Clone, LocalClone, Repositories
from data_prep.engine.media_tree import Found
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
    for used, files in (*asked, *((found.clone, found.inputs) for found in media)):
        local = isinstance(used, LocalClone)
        said = inputs.setdefault(
            used.repo, {"revision": used.revision, "copy": str(used.folder) if local else None, "files": {}}
        )
        said["files"].update({name: _state(used.folder / name) for name in files})
    return inputs


def changed_inputs(inputs: Mapping[str, Any], repositories: Repositories) -> bool:
    """Whether local copies are others than those that a set was made from, or changed since."""
    for repo, said in inputs.items():
        try:
            clone = repositories.open(repo, None)
        except InputError:
            return True
        if str(clone.folder) != said["copy"]:
            return True
        if any(_state(clone.folder / name) != state for name, state in said["files"].items()):
            return True
    return False


def _state(path: Path) -> list[int]:
    if not path.is_file():
        return []
    return [path.stat().st_size, path.stat().st_mtime_ns]
