"""A set on its way: found or downloaded, its media unpacked, its rows converted, written, and last of all recorded."""

import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from data_prep.converters import Converter, Media, Record, ToPairs, ToRanked
from data_prep.converters.registry import converter_of
from data_prep.engine.clones import Clone, Repositories
from data_prep.engine.inputs import changed_inputs, inputs_of
from data_prep.engine.links import MADE
from data_prep.engine.lock import locked
from data_prep.engine.manifest import (
    MISSING_QUERIES,
    MISSING_TARGETS,
    TARGETS,
    Entry,
    count_files,
    damaged,
    entry_of,
    files_of,
    is_prepared,
    missing_words,
    read_manifest,
    record_set,
    stamp,
)
from data_prep.engine.media_tree import bring, find_media, lay, names_of
from data_prep.engine.upstream_rows import Begun, front_matter, placed, read_rows, row_files
from data_prep.engine.write_sets import PutAside, limited, refuse_missing, write_ranked, write_table
from data_prep.source import Source, SourceSet
from mmembed.errors import InputError
from mmembed.items import Pair
from mmembed.progress import track

MAX_BAD = 0.01


@dataclass(frozen=True)
class Wishes:
    """How sets are prepared.

    Args:
        max_bad: share of the rows of a table of pairs that may be put aside.
        overwrite: prepare again what is prepared.
        compare: whether numbers of rows are compared with those that the source expects; not those of a miniature,
            which the manifest says to be one then.
        allow_missing: leave queries and targets out of a retrieval set whose media are missing, where its converter
            can, instead of refusing it.
    """

    max_bad: float = MAX_BAD
    overwrite: bool = False
    compare: bool = True
    allow_missing: bool = False


USUAL = Wishes()


def prepare(
    source: Source, data_root: Path, *, copies: Path | Sequence[Path] | None = None, limit: int | None = None,
    wishes: Wishes = USUAL,
) -> dict[str, Any]:  # fmt: skip
    """Prepare every set of a source below ``data_root/<source>``.

    Args:
        source: the sets.
        data_root: where prepared data lie.
        copies: folder of local copies of the repositories, or several; None downloads them.
        limit: only the first rows of each set (of sets in parts: queries); None takes all.
        wishes: the rest.

    Returns:
        The manifest.

    Raises:
        InputError: a set that cannot be prepared; those before it are.
    """
    copies = (copies,) if isinstance(copies, Path) else tuple(copies or ())
    repositories = Repositories(data_root.resolve(), tuple(folder.absolute() for folder in copies))
    for row in source.sets.values():
        try:
            prepare_set(source, row, repositories, limit, wishes)
        except InputError as error:
            raise error.within(f"{source.name}/{row.name}") from error
    return read_manifest(data_root, source.name)


def prepare_set(
    source: Source, row: SourceSet, repositories: Repositories, limit: int | None = None, wishes: Wishes = USUAL
) -> Entry:
    """Prepare a set, unless it is prepared; see :func:`prepare`.

    Returns:
        What the manifest says of it.

    Raises:
        InputError: it cannot be prepared; what was prepared of it before stays, unless its media were replaced.
    """
    try:
        with locked(repositories.data_root / source.name):
            preparation = _Preparation(source, row, repositories, limit, wishes)
            try:
                return preparation.run()
            except InputError as error:
                raise placed(error, preparation.begun) from error
    except OSError as error:
        expected, remedy = "to read and write files", "free space, check the rights, or give another --data-root"
        raise InputError(repositories.data_root, expected=expected, got=error, remedy=remedy) from error


def row_names(row: SourceSet, converter: Converter, clone: Clone) -> dict[str, list[str]]:
    """Files of the rows of each part, as paths below the clone."""
    if clone.match("README.md"):
        clone.get(["README.md"])
    front = front_matter(clone.folder / "README.md")
    parts: dict[str, str | None] = {part: part for part in converter.parts} or {"rows": None}
    return {name: row_files(row, part, front, clone.match) for name, part in parts.items()}


@dataclass(frozen=True)
class _Preparation:
    """One set on its way."""

    source: Source
    row: SourceSet
    repositories: Repositories
    limit: int | None
    wishes: Wishes
    begun: dict[str, Begun] = field(default_factory=dict)

    def run(self) -> Entry:
        """Prepare the set, unless it is."""
        if not self.wishes.overwrite:
            if (entry := self._done()) is not None:
                return entry
            self._refuse_less()
        started = time.monotonic()
        converter = converter_of(self.row)
        clone = self.repositories.of(self.row)
        names = row_names(self.row, converter, clone)
        found = [find_media(self.row, media, self.repositories) for media in self.row.media]
        clone.get(name for files in names.values() for name in files)
        layers = [layer for part in found for layer in bring(part, self._root)]
        lay(self.source, self.row.name, layers, self._root, overwrite=self.wishes.overwrite)
        self._sweep()
        rows = {part: self._rows(clone, files, converter, part) for part, files in names.items()}
        # not where the media lie that the set has until now
        made = next(folder for folder in self._made_folders() if folder not in self._kept())
        try:
            if converter.pairs:
                written = self._pairs(converter.pairs, rows, made)
            else:
                written = self._ranked(converter.ranked, rows, made)
        except BaseException:
            shutil.rmtree(made, ignore_errors=True)
            raise
        whole = self.wishes.compare and self.limit is None
        record_set(self._root, self.source, self.row.name, written | {
            "stamp": stamp(self.row, self.limit),
            "limit": self.limit,
            "miniature": not self.wishes.compare,
            "media": [layer.record(self._root) for layer in layers],
            "inputs": inputs_of(clone, names, found),
            "expected": self.row.rows if whole else None,
            "expected_targets": self.row.targets if whole else None,
            "licence": self.row.licence,
            "seconds": round(time.monotonic() - started, 1),
        })  # fmt: skip
        self._sweep()
        entry = self._entry()
        assert entry is not None, "it was recorded just now"
        return entry

    @property
    def _root(self) -> Path:
        return self.repositories.data_root

    @property
    def _folder(self) -> Path:
        return self._root / self.source.name

    @property
    def _tree(self) -> Path:
        return self._folder / "media"

    def _made_folders(self) -> list[Path]:
        """Where a converter may write media: two places, so that what is there stays until the set is whole."""
        return [self._tree / MADE / name for name in (self.row.name, f"{self.row.name}.again")]

    def _kept(self) -> list[Path]:
        """The media that the manifest says the converter to have written."""
        entry = self._entry()
        return [self._folder / entry["made"]["folder"]] if entry and entry["made"] else []

    def _entry(self) -> Entry | None:
        return entry_of(self._root, self.source.name, self.row.name)

    def _done(self) -> Entry | None:
        """What the manifest says of the set, if it is what is wished for."""
        entry = self._entry()
        if entry is None or not is_prepared(self._root, self.source.name, self.row, self.limit):
            return None
        aside = entry["put_aside"]["count"]
        if entry["miniature"] == self.wishes.compare or aside > self.wishes.max_bad * (aside + entry["rows"]):
            return None
        # what was missing may have come
        if missing_words(entry):
            return None
        asked = self.repositories.copies or self.repositories.update
        return None if asked and changed_inputs(self.row, entry["inputs"], self.repositories) else entry

    def _refuse_less(self) -> None:
        """Refuse to put some rows, or a miniature, in the place of all of them."""
        entry = self._entry()
        if (self.limit is None and self.wishes.compare) or entry is None or damaged(self._folder, entry, count=False):
            return
        if entry["limit"] is None and not entry["miniature"]:
            got = "a miniature" if self.limit is None else f"--limit {self.limit}"
            remedy = "leave it out, give another --data-root, or replace the whole set with --overwrite"
            raise InputError(self._folder, expected=f"{self.row.name} to stay whole", got=got, remedy=remedy)

    def _columns(self, converter: Converter, part: str) -> tuple[str, ...]:
        return (*(self.row.columns if part == "rows" else ()), *converter.columns.get(part, ()))

    def _rows(self, clone: Clone, files: Sequence[str], converter: Converter, part: str) -> Iterator[Record]:
        begun, columns = self.begun.setdefault(part, []), self._columns(converter, part)
        form = converter.forms.get(part, "records")
        rows = read_rows([clone.folder / file for file in files], columns, begun, form)
        limit = self.limit if part == "rows" else None
        label = f"{self.source.name}/{self.row.name}" + ("" if part == "rows" else f": {part}")
        total = limit or self.row.rows if part == "rows" else None
        return track(islice(rows, limit), label, total)

    def _media(self, made: Path) -> Media:
        roots = (*names_of(self.row.media), "", *self.row.options.get("roots", ()))
        made.mkdir(parents=True, exist_ok=True)
        return Media(self._tree, made, tuple(dict.fromkeys(roots)))

    def _pairs(self, converter: ToPairs, rows: Mapping[str, Iterator[Record]], made: Path) -> Entry:
        path = self._folder / f"{self.row.name}.parquet"
        pairs = self._placed(converter(rows["rows"], self.row, self._media(made)))
        written, aside = write_table(path, pairs, self.wishes.max_bad, self._unrecord)
        return self._written("pairs", made, [path], written, aside, {})

    def _placed(self, pairs: Iterator[Pair | InputError]) -> Iterator[Pair | InputError]:
        return (placed(pair, self.begun) if isinstance(pair, InputError) else pair for pair in pairs)

    def _ranked(self, converter: ToRanked | None, rows: Mapping[str, Iterator[Record]], made: Path) -> Entry:
        assert converter is not None, "a converter makes pairs or a retrieval set"
        ranked = limited(converter(rows, self.row, self._media(made)), self.limit)
        if not self.wishes.allow_missing:
            refuse_missing(ranked, self._tree)
        files = write_ranked(self._folder / self.row.name, ranked, self._unrecord)
        notes = {**ranked.notes, TARGETS: len(ranked.corpus)}
        missing = {MISSING_QUERIES: ranked.missing_queries, MISSING_TARGETS: ranked.missing_targets}
        notes |= {name: len(left_out) for name, left_out in missing.items() if left_out}
        return self._written("retrieval set", made, files, len(ranked.queries), PutAside(), notes)

    def _unrecord(self) -> None:
        """Take the manifest's word for the set away, before files take the place of those that it speaks of."""
        if self.row.name in read_manifest(self._root, self.source.name)["sets"]:
            record_set(self._root, self.source, self.row.name, None)

    def _written(
        self, kind: str, folder: Path, files: list[Path], rows: int, aside: PutAside, notes: Mapping[str, int]
    ) -> Entry:
        number, size = count_files(folder)
        if not number:
            shutil.rmtree(folder)
        made = {"folder": folder.relative_to(self._folder).as_posix(), "files": number, "bytes": size}
        return {
            "kind": kind,
            "rows": rows,
            "put_aside": {"count": aside.count, "first": aside.first},
            "notes": dict(notes),
            "files": files_of(self._folder, files),
            "made": made if number else None,
        }

    def _sweep(self) -> None:
        """Remove what killed preparations left of the set, and what the manifest no longer speaks of."""
        table, entry = self._folder / f"{self.row.name}.parquet", self._entry()
        names = (f".{self.row.name}.*.part", f".{table.name}.*.part", f".{self.row.name}.*.old")
        gone = [path for name in names for path in self._folder.glob(name)]
        gone += [folder for folder in self._made_folders() if folder not in self._kept()]
        if entry is None or entry["kind"] != "pairs":
            gone += [table, self._folder / f".{table.name}.arrow"]
        if entry is None or entry["kind"] == "pairs":
            gone.append(self._folder / self.row.name)
        for path in gone:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
