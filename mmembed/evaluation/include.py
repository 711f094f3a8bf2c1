"""YAML files of named rows that take in the rows of others beside them by ``include: [name, ...]``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmembed.errors import InputError
from mmembed.settings import check_named, load_yaml

Rows = dict[str, dict[str, Any]]


def read_including(path: Path | str, key: str, row: str, _from: tuple[Path, ...] = ()) -> list[tuple[Path, Rows]]:
    """The rows of a file, and before them those of the files that it includes; a file of includes alone has none.

    Args:
        path: the file.
        key: the key that its rows stand under, e.g. ``tasks``.
        row: what errors call a row.

    Returns:
        Files with their own rows, see :func:`mmembed.settings.check_named`.

    Raises:
        InputError: a file that cannot be read, includes that are no list of other names, or that come back to a file.
    """
    path = Path(path)
    if path in _from:
        raise InputError(
            f"{_from[-1]}: include", expected="files that do not include each other", got=f"{path.name} again",
            remedy=f"leave one out of {' > '.join(file.name for file in (*_from, path))}",
        )  # fmt: skip
    content = load_yaml(path)
    names = _included(path, content)
    found = [
        part for name in names for part in read_including(path.with_name(f"{name}.yaml"), key, row, (*_from, path))
    ]
    own = {name: value for name, value in content.items() if name != "include"} if names else content
    return found if names and not own else [*found, (path, check_named(path, own, key, row))]


def _included(path: Path, content: Any) -> list[str]:
    """Names of the files beside it that a file takes in."""
    if not isinstance(content, Mapping) or "include" not in content:
        return []
    names = content["include"]
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise InputError(
            f"{path}: include", expected="a list of names of other files beside it", got=repr(names),
            remedy="write [mmeb], without .yaml",
        )  # fmt: skip
    return names
