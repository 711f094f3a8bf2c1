"""Room for files of one kind in a folder that several processes write to: the least recently used go first."""

import fcntl
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

LEDGER = ".feature_bytes"
"""File in the folder that says how many bytes were given out, and is locked by who changes it."""
LOW_MARK = 0.9
"""Share of the bound that is left when files go, so that the folder is not listed again for the next one."""
LEFT_OVER_S = 24 * 3600
"""Temporary files older than this were left by a process that was killed."""
_OURS = re.compile(r"[0-9a-f]{32}/[0-9a-f]{2}/[0-9a-f]{32}\.safetensors")
_PART = re.compile(r"[0-9a-f]{32}/[0-9a-f]{2}/\.[0-9a-f]{32}\.safetensors\.\w+\.part")


@dataclass(frozen=True)
class _File:
    """When a file was last used, in ns, its bytes and its path."""

    used: int
    size: int
    path: Path


class DiskRoom:
    """A bound on the bytes of ``FOLDER/SPACE/NA/NAME.safetensors``; whatever else lies in the folder is let alone.

    A process asks for room before it writes. The bytes given out stand in a file under a lock, so that all processes
    together keep the bound; the folder is listed only at a process's first question and where the bound is reached.

    Args:
        directory: the folder, made at the first question.
        max_bytes: of all files together.
    """

    def __init__(self, directory: Path, max_bytes: int) -> None:
        self.directory, self.max_bytes = directory, max_bytes
        self._listed = False

    def reserve(self, size: int) -> bool:
        """Make room for a file of ``size`` bytes; False where the bound is smaller than it.

        Raises:
            OSError: the folder cannot be written to.
        """
        if size > self.max_bytes:
            return False
        self.directory.mkdir(parents=True, exist_ok=True)
        with self._ledger() as ledger:
            said = ledger.read_text()
            # one that a process was killed in the middle of says nothing
            given = int(said) if said.isdecimal() else 0
            if not (said.isdecimal() and self._listed):
                # more than is listed where others are about to write
                given = max(given, sum(file.size for file in self._files()))
                self._listed = True
            if given + size > self.max_bytes:
                given = self._evict(self.max_bytes - size)
            ledger.write_text(str(given + size))
        return True

    @contextmanager
    def _ledger(self) -> Iterator[Path]:
        path = self.directory / LEDGER
        with path.open("a") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield path

    def _evict(self, most: int) -> int:
        """Remove the files used least lately until at most ``most`` bytes are left; how many are."""
        files = sorted(self._files(), key=lambda file: file.used)
        left = sum(file.size for file in files)
        wanted = min(most, int(self.max_bytes * LOW_MARK)) if left > most else most
        for file in files:
            if left <= wanted:
                break
            # another process may have removed it, or be reading it, which goes on
            with suppress(FileNotFoundError):
                file.path.unlink()
            left -= file.size
        return left

    def _files(self) -> list[_File]:
        """The files that are ours; those that a killed process left half written are removed."""
        found = []
        for path in self.directory.glob("*/*/*"):
            name = path.relative_to(self.directory).as_posix()
            with suppress(FileNotFoundError):
                if _OURS.fullmatch(name):
                    stat = path.stat()
                    found.append(_File(stat.st_mtime_ns, stat.st_size, path))
                elif _PART.fullmatch(name) and time.time() - path.stat().st_mtime > LEFT_OVER_S:
                    path.unlink()
        return found
