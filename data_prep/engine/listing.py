"""What sources there are, what of them is prepared, and what would be downloaded, in words."""

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import rich.box
import rich.table
from rich.console import Console

from data_prep.converters.registry import converter_of
from data_prep.engine.clones import Repositories
from data_prep.engine.fetch import HubClone
from data_prep.engine.manifest import damaged, read_manifest, stamp
from data_prep.engine.media_tree import find_media
from data_prep.engine.preparation import only_repository, row_names
from data_prep.source import Source, SourceSet
from mmembed.errors import InputError


def print_sources(sources: Iterable[Source], data_root: Path) -> None:
    """Print a table of sets: rows, repository, licence, and whether they are prepared."""
    table = rich.table.Table(box=rich.box.SIMPLE)
    for column in ("set", "rows", "repository", "licence", "prepared"):
        table.add_column(column, overflow="fold", justify="right" if column == "rows" else "left")
    seen = set[str]()
    for source in sources:
        for row in source.sets.values():
            name = f"{source.name}/{row.name}"
            if name not in seen:
                seen.add(name)
                rows = "" if row.rows is None else f"{row.rows}"
                table.add_row(name, rows, row.repo, row.licence, state_of(source, row, data_root))
    # a file or pipe has no width of its own
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def state_of(source: Source, row: SourceSet, data_root: Path) -> str:
    """Whether a set is prepared, in a word or two."""
    entry = read_manifest(data_root, source.name)["sets"].get(row.name)
    if entry is None:
        return "no"
    if lost := damaged(data_root / source.name, entry):
        return f"damaged: {lost}"
    if entry["limit"] is not None:
        return f"the first {entry['limit']}"
    if entry["stamp"] != stamp(row, None):
        return "stale"
    return "short" if is_short(entry) else "yes"


def is_short(entry: Mapping[str, Any]) -> bool:
    """Whether a set has fewer or more rows than its source expects."""
    return entry["expected"] is not None and entry["expected"] != entry["rows"] + entry["put_aside"]["count"]


def sentence(entry: Mapping[str, Any]) -> str:
    """What the manifest says of a set, in words."""
    noun = "pairs" if entry["kind"] == "pairs" else "queries"
    words = [f"{entry['rows']} {noun}"]
    if entry["limit"] is not None:
        words.append(f"the first {entry['limit']} rows only")
    words += [f"{count} {note}" for note, count in entry["notes"].items()]
    if aside := entry["put_aside"]["count"]:
        words.append(f"{aside} rows put aside (see the manifest); the first: {entry['put_aside']['first'][0]}")
    if is_short(entry):
        words.append(f"EXPECTED {entry['expected']}: the data are not those that were published")
    return "; ".join(words)


def say_downloads(sources: Iterable[Source], data_root: Path, copies: Path | None) -> int:
    """Print what each set needs from where; 2 where something cannot be found."""
    status, total = 0, 0
    for source in sources:
        repositories = Repositories(data_root.absolute(), copies and copies.absolute(), only_repository(source))
        counted = set[tuple[str, str]]()
        for row in source.sets.values():
            try:
                clone = repositories.open(row.repo, row.revision)
                files = [name for names in row_names(row, converter_of(row), clone).values() for name in names]
                needed = [(clone, files)]
                for media in row.media:
                    found = find_media(row, media, repositories)
                    needed.append((found.clone, [*found.archives, *found.plain]))
            except InputError as error:
                print(f"{source.name}/{row.name}: {error}", file=sys.stderr)
                status = 2
                continue
            for used, names in needed:
                fresh = [name for name in names if (used.repo, name) not in counted]
                counted |= {(used.repo, name) for name in fresh}
                size = used.missing_bytes(fresh) if isinstance(used, HubClone) else 0
                total += size
                place = f"{used.repo} at {used.revision}, {size / 1e9:.2f} GB to download"
                if not isinstance(used, HubClone):
                    place = f"{used.folder}, nothing to download"
                print(f"{source.name}/{row.name}: {len(names)} files of {place}")
    print(f"{total / 1e9:.2f} GB to download")
    return status
