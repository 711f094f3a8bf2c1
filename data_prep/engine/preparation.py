"""A set on its way: found or downloaded, its media unpacked, its rows converted, written, and last of all recorded."""

import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from data_prep.converters import Converter, Media, Record, ToPairs, ToRanked
from data_prep.converters.registry import converter_of
from data_prep.engine.clones import Clone, Repositories
from data_prep.engine.inputs import changed_inputs, inputs_of
from data_prep.engine.lock import locked
from data_prep.engine.manifest import Entry, count_files, files_of, is_prepared, read_manifest, record_set, stamp
from data_prep.engine.media_tree import find_media, names_of, provide
from data_prep.engine.upstream_rows import front_matter, read_rows, row_files
from data_prep.engine.write_sets import PutAside, first_queries, write_ranked, write_table
from data_prep.source import Source, SourceSet
from mmembed.progress import track

MAX_BAD = 0.01


@dataclass(frozen=True)
class Wishes:
    """How sets are prepared.

    Args:
        limit: only the first rows (of sets in parts: queries); None takes all.
        max_bad: share of the rows of a table of pairs that may be put aside.
        overwrite: prepare again what is prepared.
        compare: whether numbers of rows are compared with those that the source expects.
    """

    limit: int | None = None
    max_bad: float = MAX_BAD
    overwrite: bool = False
    compare: bool = True


def prepare(
    source: Source, data_root: Path, *, copies: Path | None = None, limit: int | None = None,
    wishes: Wishes | None = None, only: str | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Prepare every set of a source below ``data_root/<source>``.

    Args:
        source: the sets.
        data_root: where prepared data lie.
        copies: folder of local copies of the repositories; None downloads them.
        limit: only the first rows of each set; None takes all.
        wishes: the rest; its ``limit`` is that one where none is given.
        only: the repository that ``copies`` may be the copy of; None is the one that the source needs, if it is one.

    Returns:
        The manifest.

    Raises:
        InputError: a set that cannot be prepared; those before it are.
    """
    wishes = wishes or Wishes()
    wishes = wishes if limit is None else replace(wishes, limit=limit)
    data_root = data_root.absolute()
    repositories = Repositories(data_root, copies and copies.absolute(), only or only_repository(source))
    for row in source.sets.values():
        with locked(data_root / source.name):
            Preparation(source, row, data_root, repositories, wishes).run()
    return read_manifest(data_root, source.name)


def only_repository(source: Source) -> str | None:
    """The repository that a source needs, if it needs one alone."""
    repos = {repo for row in source.sets.values() for repo in (row.repo, *(m.repo or row.repo for m in row.media))}
    return next(iter(repos)) if len(repos) == 1 else None


def row_names(row: SourceSet, converter: Converter, clone: Clone) -> dict[str, list[str]]:
    """Files of the rows of each part, as paths below the clone."""
    if clone.match("README.md"):
        clone.get(["README.md"])
    front = front_matter(clone.folder / "README.md")
    parts: dict[str, str | None] = {part: part for part in converter.parts} or {"rows": None}
    return {name: row_files(row, part, front, clone.match) for name, part in parts.items()}


@dataclass(frozen=True)
class Preparation:
    """One set on its way."""

    source: Source
    row: SourceSet
    data_root: Path
    repositories: Repositories
    wishes: Wishes

    def run(self) -> None:
        """Prepare the set, unless it is."""
        if not self.wishes.overwrite and self._is_done():
            return
        started = time.monotonic()
        converter = converter_of(self.row)
        clone = self.repositories.open(self.row.repo, self.row.revision)
        names = row_names(self.row, converter, clone)
        found = [find_media(self.row, media, self.repositories) for media in self.row.media]
        clone.get(name for files in names.values() for name in files)
        layers = [layer for part in found for layer in provide(part, self._tree, self.data_root)]
        self._discard()
        rows = {part: self._rows(clone, files, self._columns(converter, part), part) for part, files in names.items()}
        entry = self._pairs(converter.pairs, rows) if converter.pairs else self._ranked(converter.ranked, rows)
        compared = self.wishes.compare and self.wishes.limit is None
        entry |= {
            "stamp": stamp(self.row, self.wishes.limit),
            "limit": self.wishes.limit,
            "media": layers,
            "inputs": inputs_of(clone, names, found),
            "compared": compared,
            "expected": self.row.rows if compared else None,
            "licence": self.row.licence,
            "seconds": round(time.monotonic() - started, 1),
        }
        record_set(self.data_root, self.source, self.row.name, entry)

    @property
    def _folder(self) -> Path:
        return self.data_root / self.source.name

    @property
    def _tree(self) -> Path:
        return self._folder / "media"

    @property
    def _made(self) -> Path:
        return self._tree / "made" / self.row.name

    def _is_done(self) -> bool:
        if not is_prepared(self.data_root, self.source.name, self.row, self.wishes.limit):
            return False
        inputs = read_manifest(self.data_root, self.source.name)["sets"][self.row.name]["inputs"]
        return self.repositories.copies is None or not changed_inputs(inputs, self.repositories)

    def _columns(self, converter: Converter, part: str) -> tuple[str, ...]:
        return (*(self.row.columns if part == "rows" else ()), *converter.columns.get(part, ()))

    def _rows(self, clone: Clone, files: Sequence[str], columns: Sequence[str], part: str) -> Iterator[Record]:
        rows = read_rows([clone.folder / file for file in files], columns)
        limit = self.wishes.limit if part == "rows" else None
        label = f"{self.source.name}/{self.row.name}" + ("" if part == "rows" else f": {part}")
        total = limit or self.row.rows if part == "rows" else None
        return track(islice(rows, limit), label, total)

    def _media(self) -> Media:
        roots = (*names_of(self.row.media), "", *self.row.options.get("roots", ()))
        self._made.mkdir(parents=True, exist_ok=True)
        return Media(self._tree, self._made, tuple(dict.fromkeys(roots)))

    def _pairs(self, converter: ToPairs, rows: Mapping[str, Iterator[Record]]) -> Entry:
        path = self._folder / f"{self.row.name}.parquet"
        made = converter(rows["rows"], self.row, self._media())
        written, aside = write_table(path, made, self.wishes.max_bad)
        return self._entry("pairs", [path], written, aside, {})

    def _ranked(self, converter: ToRanked | None, rows: Mapping[str, Iterator[Record]]) -> Entry:
        assert converter is not None, "a converter makes pairs or a retrieval set"
        ranked = first_queries(converter(rows, self.row, self._media()), self.wishes.limit)
        files = write_ranked(self._folder / self.row.name, ranked)
        notes = {**ranked.notes, "targets": len(ranked.corpus)}
        return self._entry("retrieval set", files, len(ranked.queries), PutAside(), notes)

    def _entry(self, kind: str, files: list[Path], rows: int, aside: PutAside, notes: Mapping[str, int]) -> Entry:
        number, size = count_files(self._made)
        if not number:
            shutil.rmtree(self._made)
        made = {"folder": self._made.relative_to(self._folder).as_posix(), "files": number, "bytes": size}
        return {
            "kind": kind,
            "rows": rows,
            "put_aside": {"count": aside.count, "first": aside.first},
            "notes": dict(notes),
            "files": files_of(self._folder, files),
            "made": made if number else None,
        }

    def _discard(self) -> None:
        """Remove what an earlier preparation left of the set, the manifest's word for it first."""
        if self.row.name in read_manifest(self.data_root, self.source.name)["sets"]:
            record_set(self.data_root, self.source, self.row.name, None)
        table = self._folder / f"{self.row.name}.parquet"
        for file in (table, self._folder / f".{table.name}.arrow"):
            file.unlink(missing_ok=True)
        # what was being written when a preparation was killed has these names
        left = [path for name in (self.row.name, table.name) for path in self._folder.glob(f".{name}.*.part")]
        for path in (*left, *self._folder.glob(f".{self.row.name}.*.old"), self._folder / self.row.name, self._made):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
