"""A file that was published in pieces, read as one."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast


class Pieces(io.RawIOBase):
    """The pieces of an archive as one file.

    Args:
        files: the pieces in order.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = files
        self._sizes = [file.stat().st_size for file in files]
        self._at = 0
        self._number, self._handle = -1, cast(BinaryIO, None)

    def readable(self) -> bool:
        """See :class:`io.RawIOBase`."""
        return True

    def seekable(self) -> bool:
        """See :class:`io.RawIOBase`."""
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        """See :class:`io.RawIOBase`."""
        self._at = max(0, offset + (0, self._at, sum(self._sizes))[whence])
        return self._at

    def tell(self) -> int:
        """See :class:`io.RawIOBase`."""
        return self._at

    def readinto(self, buffer: Any) -> int:
        """See :class:`io.RawIOBase`."""
        start = 0
        for number, size in enumerate(self._sizes):
            if self._at < start + size:
                handle = self._piece(number)
                handle.seek(self._at - start)
                data = handle.read(min(len(buffer), start + size - self._at))
                buffer[: len(data)] = data
                self._at += len(data)
                return len(data)
            start += size
        return 0

    def close(self) -> None:
        """See :class:`io.RawIOBase`."""
        if self._handle is not None:
            self._handle.close()
        super().close()

    def _piece(self, number: int) -> BinaryIO:
        if number != self._number:
            if self._handle is not None:
                self._handle.close()
            self._number, self._handle = number, self._files[number].open("rb")
        return self._handle
