"""Rows of a CSV as what is asked and what answers it; what is wrong with a row is said by file, line and column."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import PIL.Image
from PIL import ExifTags

from data_prep.own.csv_file import CsvFile, Line
from mmembed.errors import InputError
from mmembed.files import bytes_fingerprint
from mmembed.items import Image
from mmembed.media.decode import decode
from mmembed.media.settings import MediaSettings
from mmembed.progress import track

Faults = list[InputError]


@dataclass(frozen=True)
class Columns:
    """Which columns of a CSV are what.

    Args:
        picture: file names of the pictures that answer.
        texts: words; several are one text, or each a text of its own.
        each: whether each is a text of its own.
        query_picture: file names of pictures to ask with; with words beside them, the words are a change.
        instruction: what tells the task, where rows differ in it.
        negatives: file names of pictures that look right and are wrong.
    """

    picture: str
    texts: tuple[str, ...] = ()
    each: bool = False
    query_picture: str | None = None
    instruction: str | None = None
    negatives: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.texts and self.query_picture is None:
            raise InputError(
                "--text-column", expected="something to ask with", got="none", remedy="or give --query-picture-column"
            )

    @property
    def names(self) -> list[str]:
        """All of them."""
        named = (self.picture, *self.texts, self.query_picture, self.instruction, *self.negatives)
        return list(dict.fromkeys(name for name in named if name is not None))

    @property
    def pictures(self) -> list[str]:
        """Those of file names; the cells of the last may be empty."""
        return [name for name in (self.picture, self.query_picture, *self.negatives) if name is not None]


@dataclass(frozen=True)
class Row:
    """One row of a CSV that can be used; pictures by their names below the folder.

    Args:
        line: where it begins.
        picture: what answers.
        text: words, in a line each where they come of several columns; empty where only a picture asks.
        query_picture: what is asked with.
        instruction: tells the task; None is what all queries have.
        negatives: wrong answers.
    """

    line: int
    picture: str
    text: str = ""
    query_picture: str | None = None
    instruction: str | None = None
    negatives: tuple[str, ...] = ()


class Pictures:
    """The folder of pictures.

    Args:
        folder: of them all.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise InputError("--pictures", expected="a folder", got=f"'{folder}'", remedy="check the path")
        self.folder = folder.resolve()

    def name(self, cell: str) -> str:
        """What the tables call a picture: its path below the folder.

        Raises:
            InputError: nothing of this name, or outside of the folder.
        """
        path = Path(os.path.normpath(self.folder / cell.strip()))
        if self.folder not in path.parents:
            raise InputError(
                "picture",
                expected=f"a file below {self.folder}",
                got=f"'{cell}'",
                remedy="give another --pictures",
            )
        if not os.path.isfile(path):  # noqa: PTH113 - of a name too long for one, Path raises
            raise InputError("picture", expected="a file", got=f"no '{cell:.80}'", remedy=self._like(path.name))
        return path.relative_to(self.folder).as_posix()

    def fingerprints(self, names: Sequence[str]) -> dict[str, str | InputError]:
        """What each picture shows, to the last pixel, in a word; or why it cannot be decoded."""

        def look(name: str) -> str | InputError:
            try:
                shown = decode(Image(self.folder / name), MediaSettings()).pictures[0]
            except InputError as error:
                return error
            return bytes_fingerprint(f"{shown.size}".encode() + shown.tobytes())

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            return dict(zip(names, track(pool.map(look, names), "look at the pictures", len(names)), strict=True))

    def on_their_side(self, names: Iterable[str]) -> int:
        """How many pictures their EXIF orientation would turn, which models see as they lie in the file."""

        def is_turned(name: str) -> bool:
            with PIL.Image.open(self.folder / name) as picture:
                return picture.getexif().get(ExifTags.Base.Orientation, 1) not in (0, 1)

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            return sum(pool.map(is_turned, names))

    @cached_property
    def _by_stem(self) -> Mapping[str, str]:
        files = (path for path in self.folder.rglob("*") if path.is_file())
        return {path.stem.casefold(): path.relative_to(self.folder).as_posix() for path in files}

    def _like(self, name: str) -> str:
        """The file that may be meant: the same name but for its ending and capitals."""
        like = self._by_stem.get(Path(name).stem.casefold()) or self._by_stem.get(name.casefold())
        return f"did you mean '{like}'?" if like else f"check the name, below {self.folder}"


def read_rows(file: CsvFile, columns: Columns, pictures: Pictures) -> tuple[list[Row], dict[str, str], Faults]:
    """The rows that can be used.

    Returns:
        The rows, what each of their pictures shows, and what is wrong with each of the others.
    """
    faults: Faults = []
    found: list[Row] = []
    for line in file.lines:
        rows, wrong = _rows_of(line, columns, pictures)
        faults += [error.within(f"{file.path}: line {line.number}") for error in wrong]
        found += [] if wrong else rows
    looked = pictures.fingerprints(list(dict.fromkeys(name for row in found for name in _named(row))))
    usable: list[Row] = []
    for row in found:
        wrong = [error for name in _named(row) if isinstance(error := looked[name], InputError)]
        faults += [_of_row(file.path, row.line, columns, error) for error in wrong]
        usable += [] if wrong else [row]
    return usable, {name: seen for name, seen in looked.items() if isinstance(seen, str)}, _once(faults)


def _rows_of(line: Line, columns: Columns, pictures: Pictures) -> tuple[list[Row], Faults]:
    faults: Faults = []

    def cell(column: str, read: Callable[[str], str]) -> str:
        try:
            return read(line.cells[column])
        except InputError as error:
            faults.append(InputError(column, expected=error.expected, got=error.got, remedy=error.remedy))
            return ""

    picture = cell(columns.picture, lambda value: pictures.name(_filled(value)))
    asked = columns.query_picture
    query = None if asked is None else cell(asked, lambda value: pictures.name(_filled(value)))
    wrong = [cell(name, pictures.name) for name in columns.negatives if line.cells[name].strip()]
    words = [text for name in columns.texts if (text := _words(line.cells[name]))]
    if columns.texts and not words:
        faults.append(InputError(", ".join(columns.texts), expected="words", got="none", remedy="write them"))
    own = None if columns.instruction is None else _words(line.cells[columns.instruction]) or None
    texts = words if columns.each else ["\n".join(words)]
    return [Row(line.number, picture, text, query, own, tuple(wrong)) for text in texts], faults


def _filled(value: str) -> str:
    if not value.strip():
        raise InputError("picture", expected="the name of a file", got="an empty cell", remedy="name it")
    return value


def _words(value: str) -> str:
    """The text of a cell, its blanks and line breaks each one blank."""
    return " ".join(value.split())


def _named(row: Row) -> Iterator[str]:
    yield row.picture
    if row.query_picture is not None:
        yield row.query_picture
    yield from row.negatives


def _of_row(path: Path, line: int, columns: Columns, error: InputError) -> InputError:
    return error.within(f"{path}: line {line}: {' or '.join(columns.pictures)}")


def _once(faults: Faults) -> Faults:
    return list({str(error): error for error in faults}.values())
