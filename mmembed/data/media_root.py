"""The folder that a table's media live in: rows name them by relative paths, which may not lead out of it."""

import os
from dataclasses import dataclass
from pathlib import Path

from mmembed.errors import InputError


@dataclass(frozen=True)
class MediaRoot:
    """The folder that the paths of a table are relative to.

    Links inside the folder are followed: they are its owner's, not the table's.

    Args:
        folder: an absolute path.
    """

    folder: Path

    def locate(self, name: str, where: str) -> str:
        """The absolute path of a medium named in a row; ``where`` is the field, for errors.

        Raises:
            InputError: the path leaves the folder, or nothing is there.
        """
        path = self._inside(name, where)
        if not os.path.exists(path):  # noqa: PTH110 - asked for every medium of every row, and ten times as fast as Path
            raise InputError(
                where, expected="a file", got=f"no such file '{path}'", remedy="check it and the media root"
            )
        return path

    def relative(self, path: str | Path, where: str) -> str:
        """How a row names a medium: absolute paths become relative, relative ones are so already."""
        return Path(os.path.relpath(self._inside(str(path), where), self.folder)).as_posix()

    def _inside(self, name: str, where: str) -> str:
        root = os.path.normpath(self.folder)
        path = os.path.normpath(os.path.join(root, name))  # noqa: PTH118 - as above
        if not path.startswith(os.path.join(root, "")):  # noqa: PTH118
            raise InputError(
                where,
                expected=f"a path inside {self.folder}",
                got=f"'{name}'",
                remedy="move it or give another media root",
            )
        return path
