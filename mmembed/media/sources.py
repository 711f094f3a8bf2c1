"""What media are called in complaints, and the check that their file is there."""

from pathlib import Path

import PIL.Image

from mmembed.errors import MediaError
from mmembed.items import ImageSource, VideoSource


def source_name(source: ImageSource | VideoSource) -> str:
    """What a complaint calls this source: its path, or what is known of it in memory."""
    if isinstance(source, str | Path):
        return str(source)
    if isinstance(source, bytes):
        return f"{len(source)} bytes in memory"
    if isinstance(source, tuple):
        return f"{len(source)} frames in memory"
    return _picture_name(source)


def existing_file(path: str | Path) -> Path:
    """The absolute path of a file that is there.

    Raises:
        MediaError: nothing is there, or it is a folder.
    """
    found = Path(path)
    if not found.is_file():
        got = "a folder" if found.is_dir() else "no such file"
        raise MediaError(path, expected="a file", got=got, remedy="check the path and --data-root")
    return found.absolute()


def _picture_name(picture: PIL.Image.Image) -> str:
    filename = getattr(picture, "filename", "")
    return str(filename) if filename else f"an open picture of {picture.width} x {picture.height} pixels"
