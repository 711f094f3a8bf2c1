"""Read training data of other projects as a table of pairs, and write such a table as theirs.

import FORMAT makes a table (.jsonl or .parquet, see docs/data.md) of a format's rows; export FORMAT does the reverse;
formats lists what each can hold. Media are named, not copied: paths in the input are below --input-media, paths in the
output are written relative to --output-media. Pictures that stand in the rows as bytes are written as files beside the
output, named by their content.

Nothing is lost in silence. What the other side cannot hold is refused by row and field; --drop leaves it out, and
the command says of how many rows. Rows are streamed, and the output appears whole or not at all.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import rich.box
import rich.table
from rich.console import Console

from data_prep.formats import PAIR_FIELDS, Shape
from data_prep.formats.drops import DROPS, held, held_item
from data_prep.formats.held import refuse_item, refuse_unheld
from data_prep.formats.inputs import MediaIn, Reading
from data_prep.formats.made import Made
from data_prep.formats.options import parser_of
from data_prep.formats.outputs import MediaOut, Writing
from data_prep.formats.registry import FORMATS
from mmembed.data.media_root import MediaRoot
from mmembed.data.tables import ItemTable, PairTable, Table, write_pairs
from mmembed.errors import InputError, nearest
from mmembed.items import Item, Pair
from mmembed.progress import track

EXAMPLE = """examples:
  python data_prep/convert.py formats
  python data_prep/convert.py import tevatron --input train.jsonl --corpus corpus.jsonl --output pairs.jsonl
  python data_prep/convert.py export ms-swift --input pairs.jsonl --output train.jsonl --drop query_id,target_ids
  python data_prep/convert.py import sentence-transformers --input saved_dataset --output pairs.parquet"""

TABLES = (".jsonl", ".parquet")
"""Suffixes of tables."""


class LooseRoot(MediaRoot):
    """A media root in which nothing needs to be there."""

    def locate(self, name: str, where: str) -> str:
        """The absolute path of a medium named in a row."""
        return str(self.folder / self.relative(name, where))


def import_rows(options: argparse.Namespace) -> list[str]:
    """Read a format's rows, write a table, and say what was done.

    Raises:
        InputError: file, row and field of what is wrong; nothing is written then.
    """
    form, root = FORMATS[options.format], options.output_media or options.output.parent
    _check_files(options, [options.input, *_several(options, "corpus")], [options.output, *_several(options, "items")])
    _check_suffix("--input", options.input, form.suffixes)
    for option, paths in (("--output", [options.output]), ("--items", _several(options, "items"))):
        for path in paths:
            _check_suffix(option, path, TABLES)
    within, made = MediaRoot(root.absolute()), Made(root / f"{options.output.stem}_media")
    media = MediaIn(options.input_media or options.input.parent, within, made, options.allow_missing_media)
    reading = Reading(options.input, media, tuple(options.drop), vars(options), options.limit)
    done, first = Counter[str](), list[InputError]()

    def counted() -> Iterator[Pair]:
        try:
            for pair in form.read(reading):
                done["pairs"] += 1
                yield pair
        except InputError as error:
            first.append(error)  # the table would place it in a file that will not be there
            raise

    with made:
        try:
            write_pairs(options.output, counted(), media_root=within.folder)
        except InputError:
            if first:
                raise first[0] from None
            raise
    counts = +reading.counts
    for name in options.drop:
        if not any(what.startswith(f"{name} ") for what in counts):
            counts[f"{name} left out"] = 0
    return [f"{options.output}: {done['pairs']:,} pairs of {options.input}", *_in_words(counts, made)]


def export_rows(options: argparse.Namespace) -> list[str]:
    """Read a table, write a format's rows, and say what was done.

    Raises:
        InputError: file, row and field of what is wrong; nothing is written then.
    """
    form, root = FORMATS[options.format], options.output_media or options.output.parent
    corpus = _several(options, "corpus")
    _check_files(options, [options.input, *_several(options, "items")], [options.output, *corpus])
    _check_suffix("--output", options.output, form.suffixes)
    for field in options.drop:
        if field not in DROPS:
            remedy = nearest(field, DROPS)
            raise InputError("--drop", expected="a field that can be left out", got=f"'{field}'", remedy=remedy)
    table = _opened(PairTable, options.input, options)
    rows = range(min(len(table), options.limit or len(table)))
    counts, made = Counter[str](), Made(root / f"{options.output.stem}_media")

    def pairs() -> Iterator[tuple[str, Pair]]:
        counts.clear()  # a format may look at all pairs before it writes them
        for row in track(rows, "write"):
            pair = held(table[row], form.holds, tuple(options.drop), counts, fold=options.fold_instruction)
            try:
                refuse_unheld(pair, form.holds, options.format)
            except InputError as error:
                raise error.within(table.where(row)) from None
            yield table.where(row), pair

    media = MediaOut(root, made, options.absolute_paths)
    # what formats count is kept apart: pairs() starts anew
    writing = Writing(options.output, pairs, media, vars(options), items=_documents(options, form.holds.target))
    with made:
        form.write(writing)
    said = _in_words(counts + writing.counts, made)
    return [f"{options.output}: {len(rows):,} pairs of {options.input}", *said]


def _documents(options: argparse.Namespace, shape: Shape) -> Callable[[], Iterator[tuple[str, str, Item]]]:
    """The documents of the item table that --items names, if it does."""

    def items() -> Iterator[tuple[str, str, Item]]:
        for path in _several(options, "items"):
            table = _opened(ItemTable, path, options)
            for row in track(range(len(table)), "write documents"):
                name, item = table[row]
                item = held_item(item, shape, tuple(options.drop), fold=options.fold_instruction)
                try:
                    refuse_item(item, shape, options.format)
                except InputError as error:
                    raise error.within(table.where(row)) from None
                yield table.where(row), name, item

    return items


def _opened(kind: type[Table[Any]], path: Path, options: argparse.Namespace) -> Table[Any]:
    table = kind(path, media_root=options.input_media)
    if options.allow_missing_media:
        table.root = LooseRoot(table.root.folder)
    return table


def _several(options: argparse.Namespace, name: str) -> list[Path]:
    """The files of an option that may be given once, several times or not at all."""
    value = getattr(options, name, None)
    return [] if value is None else value if isinstance(value, list) else [value]


def _check_files(options: argparse.Namespace, inputs: Sequence[Path], outputs: Sequence[Path]) -> None:
    """Refuse to write over something."""
    for path in outputs:
        if any(path.absolute() == other.absolute() for other in inputs):
            raise InputError(path, expected="another file than the input", got="the same", remedy="choose another name")
        if path.is_dir() and not (path / "dataset_info.json").is_file():
            remedy = "choose another name: a folder is replaced with all it holds"
            raise InputError(path, expected="a dataset, or nothing there yet", got="another folder", remedy=remedy)
        if path.exists() and not options.overwrite:
            remedy = "choose another name, or say --overwrite"
            raise InputError(path, expected="nothing there yet", got="a file or folder", remedy=remedy)
    if len({path.absolute() for path in outputs}) < len(outputs):
        raise InputError("outputs", expected="each its own name", got="the same", remedy="choose another name")


def _check_suffix(option: str, path: Path, suffixes: Sequence[str]) -> None:
    suffix = "" if path.is_dir() else path.suffix
    if suffix not in suffixes:
        expected = " or ".join(suffix or "a folder" for suffix in suffixes)
        got = "a folder" if path.is_dir() else f"'{path}'"
        raise InputError(option, expected=expected, got=got, remedy="name a file of that kind")


def _in_words(counts: Counter[str], made: Made) -> list[str]:
    lines = [f"  {what}: {number:,}" for what, number in counts.items()]
    return [*lines, *([f"  pictures written to {made.folder}: {len(made.written):,}"] if made.written else [])]


def list_formats() -> rich.table.Table:
    """What each format can hold, as a table."""
    table = rich.table.Table(box=rich.box.SIMPLE)
    for column in ("format", "query", "target", "positives", "negatives", "other fields"):
        table.add_column(column, overflow="fold")
    for name, form in FORMATS.items():
        holds = form.holds
        numbers = ("any" if most is None else str(most) for most in (holds.positives, holds.negatives))
        fields = ", ".join(field for field in PAIR_FIELDS if field in holds.fields) or "none"
        table.add_row(name, _shape_in_words(holds.query), _shape_in_words(holds.target), *numbers, fields)
    return table


def _shape_in_words(shape: Shape) -> str:
    images = "images" if shape.images is None else "image"
    words = [images if kind == "image" else kind for kind in shape.kinds]
    order = "in any order" if shape.tagged else "as fields"
    if len(shape.kinds) > 1:
        words[-1] += f" {order}{', verbatim' if shape.verbatim else ''}"
    return ", ".join(words) + (", instruction" if shape.instruction else "")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0 is success, 2 something in the input."""
    options = parser_of(str(__doc__), EXAMPLE).parse_args(argv)
    if options.does == "formats":
        Console(width=None if sys.stdout.isatty() else 200).print(list_formats())
        return 0
    try:
        lines = import_rows(options) if options.does == "import" else export_rows(options)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
