"""What sources there are, what of them is prepared, and what would be downloaded, in words."""

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import rich.box
import rich.table
from rich.console import Console

from data_prep.converters.registry import converter_of
from data_prep.engine.clones import Clone, Repositories
from data_prep.engine.fetch import HubClone, UnreachableError
from data_prep.engine.manifest import entry_of, standing
from data_prep.engine.media_tree import find_media
from data_prep.engine.preparation import row_names
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
                table.add_row(name, rows, row.origin, row.licence, _state(source, row, data_root))
    # a file or pipe has no width of its own
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def _state(source: Source, row: SourceSet, data_root: Path) -> str:
    """Whether a set is prepared, in words."""
    if why := standing(data_root, source.name, row):
        return why
    entry = entry_of(data_root, source.name, row.name)
    aside = entry["put_aside"]["count"] if entry else 0
    return f"yes, {aside} put aside" if aside else "yes"


def say_downloads(sources: Iterable[Source], repositories: Repositories) -> int:
    """Print what each set needs from where; 2 where something cannot be found."""
    whole, total = True, 0
    counted = set[tuple[str, str]]()
    for name, row in ((f"{source.name}/{row.name}", row) for source in sources for row in source.sets.values()):
        try:
            needed = list(_needed(row, repositories))
        except UnreachableError as error:
            # neither can what the other sets need be asked
            print(error, file=sys.stderr)
            return 2
        except InputError as error:
            print(f"{name}: {error}", file=sys.stderr)
            whole = False
            continue
        for clone, files in needed:
            fresh = [file for file in files if (clone.repo, file) not in counted]
            counted |= {(clone.repo, file) for file in fresh}
            place = f"{clone.folder}, nothing to download"
            if isinstance(clone, HubClone):
                size = clone.missing_bytes(fresh)
                total += size
                place = f"{clone.repo} at {clone.revision}, {size / 1e9:.2f} GB to download"
            print(f"{name}: {len(files)} files of {place}")
    print(f"{total / 1e9:.2f} GB to download" if whole else "no total: some sets could not be looked up")
    return 0 if whole else 2


def _needed(row: SourceSet, repositories: Repositories) -> Iterator[tuple[Clone, list[str]]]:
    """The repositories of a set, and its files in them."""
    clone = repositories.of(row)
    yield clone, [name for names in row_names(row, converter_of(row), clone).values() for name in names]
    for media in row.media:
        found = find_media(row, media, repositories)
        yield found.clone, [*found.archives, *found.plain]
