"""A CSV as people have it: encoding and delimiter found out and stated, each row with the line it begins in."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmembed.errors import InputError, nearest

DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
_MARKS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}


@dataclass(frozen=True)
class Line:
    """One row.

    Args:
        number: of the line that it begins in, from 1; a quoted cell may go on over several.
        cells: by column.
    """

    number: int
    cells: Mapping[str, str]


@dataclass(frozen=True)
class CsvFile:
    """What was read.

    Args:
        path: of the file.
        encoding: as Python names it.
        delimiter: one character.
        columns: names of all columns, in order.
        lines: the rows.
    """

    path: Path
    encoding: str
    delimiter: str
    columns: Sequence[str]
    lines: Sequence[Line]

    @property
    def told(self) -> str:
        """How it was read, in words."""
        return f"{self.encoding}, columns between {DELIMITERS.get(self.delimiter, repr(self.delimiter))}s"


def read_csv(
    path: Path, wanted: Sequence[str], *, encoding: str | None = None, delimiter: str | None = None
) -> CsvFile:
    """Read a CSV with a header.

    Args:
        path: of the file.
        wanted: columns that must be there.
        encoding: None is what a byte order mark says, else UTF-8, else Windows' cp1252.
        delimiter: None is the one of comma, semicolon, tab and bar with which the header has the columns.

    Raises:
        InputError: a file that cannot be read so, a column that is not there or there twice, a row with more or fewer
            cells than the header; file and line are named.
    """
    text, encoding = _decoded(path, encoding)
    tried = [delimiter] if delimiter else list(DELIMITERS)
    headers = {mark: _header(text, mark, path) for mark in tried}
    found = max(tried, key=lambda mark: (sum(name in headers[mark] for name in wanted), len(headers[mark])))
    columns = headers[found]
    for name in wanted:
        if columns.count(name) != 1:
            got = "it twice" if name in columns else f"columns {', '.join(columns)}"
            remedy = "rename one of the two" if name in columns else nearest(name, columns)
            raise InputError(f"{path}: line 1", expected=f"a column '{name}'", got=got, remedy=remedy)
    lines = list(_lines(text, found, columns, path))
    if not lines:
        raise InputError(path, expected="rows below the header", got="none", remedy="check the file")
    return CsvFile(path, encoding, found, columns, lines)


def _decoded(path: Path, encoding: str | None) -> tuple[str, str]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(path, expected="a CSV", got=error.strerror, remedy="check the path") from error
    marked = next((name for mark, name in _MARKS.items() if data.startswith(mark)), None)
    tried = [encoding] if encoding else [marked] if marked else ["utf-8", "cp1252"]
    for name in tried:
        try:
            return data.decode(name).removeprefix("\ufeff"), name.removesuffix("-sig")
        except LookupError as error:
            raise InputError(
                "--encoding", expected="an encoding that Python knows", got=f"'{name}'", remedy="utf-8, cp1252, ..."
            ) from error
        except UnicodeDecodeError as error:
            line, problem = data.count(b"\n", 0, error.start) + 1, error
    raise InputError(
        f"{path}: line {line}", expected=f"text in {' or '.join(tried)}", got=problem.reason,
        remedy="name its encoding with --encoding, or save it as UTF-8",
    )  # fmt: skip


def _header(text: str, delimiter: str, path: Path) -> list[str]:
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        return [name.strip() for name in next(rows, [])]
    except csv.Error as error:
        raise InputError(f"{path}: line 1", expected="a header", got=error, remedy="check the file") from error


def _lines(text: str, delimiter: str, columns: Sequence[str], path: Path) -> Iterator[Line]:
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    number = 1
    try:
        for cells in rows:
            begun, number = number, rows.line_num + 1
            if begun == 1 or not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(columns):
                raise InputError(
                    f"{path}: line {begun}", expected=f"{len(columns)} cells, as the header has", got=len(cells),
                    remedy="quote cells that hold the delimiter, or name it with --delimiter",
                )  # fmt: skip
            yield Line(begun, dict(zip(columns, cells, strict=True)))
    except csv.Error as error:
        raise InputError(
            f"{path}: line {number}", expected="a row of a CSV", got=error,
            remedy="close the quotes; a quote inside a quoted cell is written twice",
        ) from error  # fmt: skip
