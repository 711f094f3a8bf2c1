"""Check tables, retrieval sets and prepared sources: every row read, every medium decoded, every finding named."""

import argparse
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import rich.box
import rich.table
from rich.console import Console
from rich.markup import escape

from data_prep.check_sets import Finding, targets_of
from mmembed.commands import add_data_root
from mmembed.data.stores import open_store
from mmembed.data.tables import ItemTable, PairTable, Table
from mmembed.errors import InputError
from mmembed.files import fingerprint
from mmembed.items import Item, Media, Pair, Video
from mmembed.media.decode import decode
from mmembed.media.settings import MediaSettings
from mmembed.media.sources import source_name
from mmembed.progress import track

EXAMPLE = """examples:
  python data_prep/check.py demo/train.jsonl --data-root data
  python data_prep/check.py mmeb_eval/OK-VQA
  python data_prep/check.py mmeb_train --limit 1000"""
MAX_SHOWN = 100


@dataclass
class Check:
    """One pass over a table; what was seen is kept, to find duplicates and to decode each medium once.

    Args:
        table: the opened table.
        max_characters: longer texts are noted.
        frames: clips of fewer frames are noted.
    """

    table: Table[Any]
    max_characters: int
    frames: int = 8
    counts: Counter[str] = field(default_factory=Counter)
    first_seen: dict[str, str] = field(default_factory=dict)
    verdicts: dict[str, InputError | None] = field(default_factory=dict)
    spans: dict[str, int] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)

    def row(self, row: int) -> Iterator[Finding]:
        """What is to say about a row."""
        self.counts["rows"] += 1
        where = self.table.where(row)
        try:
            value = self.table[row]
        except InputError as error:
            yield Finding(error)
            return
        for name, item in named_items(value):
            for finding in self.item(item):
                yield Finding(finding.error.within(f"{where}: {name}"), finding.serious)
        yield from self.repeated(value, where)

    def item(self, item: Item) -> Iterator[Finding]:
        """What is to say about an item."""
        if not item.media and not item.text.strip():
            yield Finding(InputError("text", expected="words", got=repr(item.text), remedy="leave the row out"))
        if len(item.text) > self.max_characters:
            expected = f"at most {self.max_characters} characters"
            remedy = "a model would cut it; split it, or raise --max-characters"
            yield Finding(InputError("text", expected=expected, got=len(item.text), remedy=remedy), serious=False)
        for medium in item.media:
            self.counts["media"] += 1
            if (error := self.verdict(medium)) is not None:
                yield Finding(error)
            else:
                yield from self.oddities(medium)

    def verdict(self, medium: Media) -> InputError | None:
        """Why a medium cannot be used, if it cannot."""
        name = medium.fingerprint()
        if name not in self.verdicts:
            try:
                self.spans[name] = decode(medium, MediaSettings()).span
                self.verdicts[name] = None
            except InputError as error:
                self.verdicts[name] = error
        return self.verdicts[name]

    def oddities(self, medium: Media) -> Iterator[Finding]:
        """What is to note about a medium that decodes: a short clip, or bytes that have another name, too."""
        name, source = medium.fingerprint(), medium.source
        kind = type(medium).__name__.lower()
        if isinstance(medium, Video) and self.spans[name] < self.frames:
            expected, got = f"{self.frames} frames", f"{self.spans[name]} in {source_name(source)}"
            remedy = "all of them are used; lower --frames, or look at the clip"
            yield Finding(InputError(kind, expected=expected, got=got, remedy=remedy), serious=False)
        if isinstance(source, str | Path) and (first := self.places.setdefault(name, str(source))) != str(source):
            expected = "each once"
            got, remedy = f"'{source}', of the same bytes as '{first}'", "one of the two may be the wrong file"
            yield Finding(InputError(kind, expected=expected, got=got, remedy=remedy), serious=False)

    def repeated(self, value: Pair | tuple[str, Item], where: str) -> Iterator[Finding]:
        """Whether a row, or the name of an item, came before."""
        if isinstance(value, Pair):
            keys = {"pair": fingerprint(value.query.fingerprint(), *(item.fingerprint() for item in value.positives))}
        else:
            keys = {"id": value[0], "item": value[1].fingerprint()}
        for kind, key in keys.items():
            first = self.first_seen.setdefault(f"{kind} {key}", where)
            if first != where:
                error = InputError(f"{where}: {kind}", expected="each once", got=f"that of {first}", remedy="drop one")
                yield Finding(error, serious=kind == "id")


def named_items(value: Pair | tuple[str, Item]) -> Iterator[tuple[str, Item]]:
    """The items of a row, with the fields they stand in."""
    if not isinstance(value, Pair):
        yield "item", value[1]
        return
    yield "query", value.query
    for i, item in enumerate(value.positives):
        yield f"positives[{i}]", item
    for i, negative in enumerate(value.negatives):
        yield f"negatives[{i}].item", negative.item


def open_any(path: Path) -> Table[Any]:
    """The table at ``path``: of items where it has names and no queries, else of pairs."""
    columns = open_store(path).columns()
    return ItemTable(path) if "id" in columns and "query" not in columns else PairTable(path)


def report(findings: Sequence[Finding]) -> rich.table.Table:
    """The findings as a table, the serious ones first."""
    table = rich.table.Table(box=rich.box.SIMPLE)
    for column in ("", "where", "expected", "got", "remedy"):
        table.add_column(column, overflow="fold")
    for finding in sorted(findings, key=lambda finding: not finding.serious)[:MAX_SHOWN]:
        error = finding.error
        cells = ("error" if finding.serious else "note", error.where, error.expected, error.got, error.remedy)
        table.add_row(*map(escape, cells))
    if len(findings) > MAX_SHOWN:
        table.caption = f"and {len(findings) - MAX_SHOWN} more"
    return table


def check_table(path: Path, options: argparse.Namespace) -> list[Finding]:
    """Check the rows of a table, and say in a line what was found.

    Raises:
        InputError: it cannot be opened.
    """
    table = open_any(path)
    check = Check(table, options.max_characters, options.frames)
    rows = range(min(len(table), options.limit or len(table)))
    findings = [finding for row in track(rows, "check", len(rows)) for finding in check.row(row)]
    errors = sum(finding.serious for finding in findings)
    counts = f"{check.counts['rows']} rows, {check.counts['media']} media"
    print(f"{table.path}: {counts}, {errors} errors, {len(findings) - errors} notes")
    return findings


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0 is everything fit for use, 1 something with errors, 2 something that cannot be opened."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "target", metavar="TARGET",
        help="a .jsonl or .parquet table, the folder of a retrieval set, a prepared SOURCE or SOURCE/SET; "
        "a path, or its path below the data root",
    )  # fmt: skip
    add_data_root(parser)
    parser.add_argument("--limit", type=int, metavar="N", help="check only the first N rows of each table")
    parser.add_argument("--max-characters", type=int, default=32768, metavar="N", help="note longer texts")
    parser.add_argument("--frames", type=int, default=8, metavar="N", help="note clips of fewer frames (default: 8)")
    options = parser.parse_args(argv)
    if options.limit is not None and options.limit < 1:
        parser.error(f"argument --limit: expected 1 or more, got {options.limit}; leave it out to check every row")
    findings = list[Finding]()
    try:
        for target in targets_of(options.target, options.data_root):
            findings += target.findings
            for path in target.tables:
                findings += check_table(path, options)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    if findings:
        # a file or pipe has no width of its own: long paths stay whole there
        Console(width=None if sys.stdout.isatty() else 1000).print(report(findings))
    return 1 if any(finding.serious for finding in findings) else 0


if __name__ == "__main__":
    sys.exit(main())
