"""Tables, sets and benchmark made of a CSV and a folder of pictures, or found made."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from data_prep.commands import OWN_DATA
from data_prep.own.csv_file import CsvFile, read_csv
from data_prep.own.joined import MIN_TRAIN, Answer, Joining, held_out, refuse_right_negatives
from data_prep.own.rows import Columns, Pictures, read_rows
from data_prep.own.written import PICTURES, Wording, Writer, write_benchmark
from mmembed import __version__
from mmembed.errors import InputError
from mmembed.files import file_fingerprint, fingerprint, whole_directory, write_json

BENCHMARK, MADE = "benchmark.yaml", "made.json"
MAX_SHOWN = 100


@dataclass(frozen=True)
class Choice:
    """What is read, and how.

    Args:
        pictures: folder of them.
        csv: the rows.
        columns: which of its columns are what.
        wording: what tells the tasks.
        encoding: of the CSV; None is found out.
        delimiter: of the CSV; None is found out.
        skip_bad: leave out rows that cannot be used.
        limit: only the first rows.
        held_out: hold out at least so many pairs; None is a tenth, 20 to 1000.
        held_out_csv: rows to hold out, in place of some of the others.
        seed: holds out others.
    """

    pictures: Path
    csv: Path
    columns: Columns
    wording: Wording = field(default_factory=Wording)
    encoding: str | None = None
    delimiter: str | None = None
    skip_bad: bool = False
    limit: int | None = None
    held_out: int | None = None
    held_out_csv: Path | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("limit", "held_out"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(
                    f"--{name.replace('_', '-')}", expected="1 or more", got=value, remedy="leave it out for the usual"
                )
        if self.held_out is not None and self.held_out_csv is not None:
            raise InputError(
                "--held-out", expected="no number beside --held-out-csv, all rows of which are held out",
                got=self.held_out, remedy="leave one of the two out",
            )  # fmt: skip
        if self.delimiter is not None and len(self.delimiter) != 1:
            raise InputError(
                "--delimiter", expected="one character", got=f"'{self.delimiter}'", remedy="for a tab, write $'\\t'"
            )

    @property
    def files(self) -> list[Path]:
        """The CSVs, that of training first."""
        return [path for path in (self.csv, self.held_out_csv) if path is not None]


@dataclass(frozen=True)
class Made:
    """What was made.

    Args:
        folder: of tables and sets.
        benchmark: the YAML of the sets.
        train: rows of each table.
        test: queries of each set.
        told: what a person should know of it, a line each.
        anew: whether it was made now.
    """

    folder: Path
    benchmark: Path
    train: Mapping[str, int]
    test: Mapping[str, int]
    told: Sequence[str]
    anew: bool


def make(choice: Choice, output: Path) -> Made:
    """Make everything below ``output``, or find it made of the same files and choices.

    Raises:
        InputError: a CSV or a row that cannot be used, too few rows, or rows that hang together too much.
    """
    pictures = Pictures(choice.pictures)
    names = choice.columns.names
    files = [read_csv(path, names, encoding=choice.encoding, delimiter=choice.delimiter) for path in choice.files]
    files[0] = replace(files[0], lines=files[0].lines[: choice.limit])
    folder, benchmark = output / OWN_DATA, output / BENCHMARK
    key = _key(choice, files, pictures)
    made = json.loads((folder / MADE).read_text(encoding="utf-8")) if (folder / MADE).is_file() else {}
    anew = made.get("key") != key or not benchmark.is_file()
    if anew:
        train, test, told = _split(choice, files, pictures)
        # the last to be written, and gone before that: where it lies, it is of the tables that lie beside it
        benchmark.unlink(missing_ok=True)
        with whole_directory(folder) as part:
            (part / PICTURES).symlink_to(pictures.folder, target_is_directory=True)
            # a relative media path would be read as one below the table's folder
            writer = Writer(part.absolute(), choice.wording)
            made = {"key": key, "train": writer.train(train), "test": writer.test(test), "told": told}
            write_json(part / MADE, made)
        write_benchmark(benchmark, list(made["test"]))
    return Made(folder, benchmark, made["train"], made["test"], made["told"], anew)


def _split(
    choice: Choice, files: Sequence[CsvFile], pictures: Pictures
) -> tuple[list[Answer], list[Answer], list[str]]:
    """The pairs to train on, those to ask, and what was done, in words."""
    told: list[str] = []
    faults: list[InputError] = []
    looks: dict[str, str] = {}
    of_file = []
    for file in files:
        rows, seen, wrong = read_rows(file, choice.columns, pictures)
        told.append(f"{file.path}: {len(file.lines)} rows, {file.told}")
        of_file.append(rows)
        looks |= seen
        faults += wrong
    if faults and not choice.skip_bad:
        raise _refused(faults)
    told += [f"left out, {line}" for line in _first(faults)]
    joining = Joining.of([row for rows in of_file for row in rows], looks)
    answers, *others = (joining.answers(rows) for rows in of_file)
    for path, found in zip(choice.files, (answers, *others), strict=True):
        refuse_right_negatives(found, path)
    told.append(f"different pairs: {len(answers)}; pictures that show what another one shows: {joining.copies}")
    if turned := pictures.on_their_side(looks):
        told.append(f"pictures that lie on their side (EXIF), and are seen so: {turned}; turn them if they should not")
    test = others[0] if others else sorted(held_out(answers, looks, choice.held_out, choice.seed), key=_line)
    held = {content for answer in test for content in answer.contents}
    train = [answer for answer in answers if held.isdisjoint(answer.contents)]
    if others:
        number = len(answers) - len(train)
        told.append(f"left out, for they share a picture or a text with {choice.held_out_csv}: {number}")
    if len(train) < MIN_TRAIN or not test:
        raise InputError(
            "rows", expected=f"{MIN_TRAIN} pairs to train on, and some to hold out",
            got=f"{len(train)} and {len(test)}",
            remedy="find more rows, or hold out others: what shares a picture or a text with them is not trained on",
        )  # fmt: skip
    told.append(f"pairs to train on: {len(train)}; held out: {len(test)}")
    return list(_without(held, train)), test, told


def _line(answer: Answer) -> int:
    return answer.line


def _without(held: set[str], train: Sequence[Answer]) -> Iterator[Answer]:
    """Pictures that are held out are no wrong answers in training."""
    for answer in train:
        yield replace(answer, negatives=tuple(name for name in answer.negatives if name not in held))


def _first(faults: Sequence[InputError]) -> list[str]:
    more = [f"and {len(faults) - MAX_SHOWN} more"] if len(faults) > MAX_SHOWN else []
    return [*map(str, faults[:MAX_SHOWN]), *more]


def _refused(faults: Sequence[InputError]) -> InputError:
    remedy = "\n  ".join(["mend them, or leave their rows out with --skip-bad:", *_first(faults)])
    return InputError("rows", expected="rows that can be used", got=f"{len(faults)} faults", remedy=remedy)


def _key(choice: Choice, files: Sequence[CsvFile], pictures: Pictures) -> str:
    """Names what is made: the choices, the bytes of the CSVs, and which pictures stand there, by size and time."""
    columns = choice.columns.pictures
    cells = {line.cells[name].strip() for file in files for line in file.lines for name in columns}
    stamps = (f"{name} {_stamp(pictures.folder / name)}" for name in sorted(cells))
    bytes_of = (file_fingerprint(file.path) for file in files)
    return fingerprint(__version__, repr(choice), str(pictures.folder), *bytes_of, *stamps)


def _stamp(path: Path) -> str:
    try:
        found = os.stat(path)  # noqa: PTH116 - asked for every picture
    except (OSError, ValueError):  # the latter of a name that no file can have
        return "none"
    return f"{found.st_size} {found.st_mtime_ns}"
