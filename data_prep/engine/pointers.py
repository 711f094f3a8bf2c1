"""What Git leaves of a large file in a clone, where nobody pulled it."""

from pathlib import Path

from mmembed.errors import InputError

LFS_POINTER = b"version https://git-lfs"


def refuse_pointer(file: Path, expected: str) -> None:
    """Refuse a file that only names another.

    Raises:
        InputError: it is a pointer of Git LFS.
    """
    with file.open("rb") as handle:
        if handle.read(len(LFS_POINTER)) == LFS_POINTER:
            remedy = "run git lfs pull in the clone"
            raise InputError(file, expected=expected, got="a Git LFS pointer", remedy=remedy)
