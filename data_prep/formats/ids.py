"""Names on disk: what a corpus of millions is looked up by, in memory that does not grow with it."""

import sqlite3
import tempfile
from pathlib import Path

_CACHE_KIB = 64 * 1024


class Names:
    """A mapping of names to whole numbers in a temporary file, below ``$TMPDIR``: 23 MB for a million short ones.

    Used as a context, at the end of which it is gone.
    """

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="names-")
        self._table = sqlite3.connect(Path(self._folder.name) / "names.sqlite", isolation_level=None)
        for setting in ("journal_mode = OFF", "synchronous = OFF", f"cache_size = -{_CACHE_KIB}"):
            self._table.execute(f"PRAGMA {setting}")
        self._table.execute("CREATE TABLE names (name TEXT PRIMARY KEY, value INTEGER, line INTEGER) WITHOUT ROWID")
        self._table.execute("BEGIN")

    def __enter__(self) -> "Names":
        return self

    def __exit__(self, *error: object) -> None:
        self._table.close()
        self._folder.cleanup()

    def add(self, name: str, value: int, line: int = 0) -> tuple[int, int] | None:
        """Add a name, or say what is known of it already."""
        done = self._table.execute("INSERT OR IGNORE INTO names VALUES (?, ?, ?)", (name, value, line))
        return None if done.rowcount else self.get(name)

    def get(self, name: str) -> tuple[int, int] | None:
        """Value and line of a name, if it is known."""
        found: tuple[int, int] | None = self._table.execute(
            "SELECT value, line FROM names WHERE name = ?", (name,)
        ).fetchone()
        return found
