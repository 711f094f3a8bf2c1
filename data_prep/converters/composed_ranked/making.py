"""What the benchmarks of composed retrieval share: a corpus, queries that show a target of it, and missing media."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from data_prep.converters import Media, Ranked
from data_prep.converters.fields import REMEDY
from mmembed.errors import InputError
from mmembed.items import Image, Item, Video

Shown: TypeAlias = Image | Video


@dataclass(frozen=True)
class Query:
    """A row of a benchmark.

    Args:
        name: its name, as a submission writes it where there are submissions.
        reference: name of the target that it shows.
        texts: what it says, as it is.
        right: grades of the right targets by their names; empty where they are not public.
        candidates: the targets that it ranks besides the corpus; empty where there is no such list.
        groups: groups that it is in, by kind.
    """

    name: str
    reference: str
    texts: Sequence[str]
    right: Mapping[str, float] = field(default_factory=dict)
    candidates: Sequence[str] = ()
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Making:
    """A set in the making. What lacks its file is left out and noted down; who asked for the set decides then.

    Args:
        media: where pictures and clips lie.
        made: the set.
        kind: what the files are.
        files: where each target was looked for that is not there, by its name.
    """

    media: Media
    made: Ranked
    kind: Callable[[str], Shown] = Image
    files: dict[str, str] = field(default_factory=dict)

    def look(self, names: Sequence[str], where: str) -> Path | None:
        """The first of some files that is there."""
        return next((path for name in names if (path := self.media.look(name, where))), None)

    def target(self, name: str, files: Sequence[str], where: str) -> None:
        """Add a target, whose file has one of these names."""
        if not self.has(name):
            self.add(name, self.look(files, where), files[0])

    def add(self, name: str, path: Path | None, file: str) -> None:
        """Add a target that is none yet; without a path it is missing, and ``file`` is what it was looked for as."""
        if path is None:
            self.files[name] = self.made.missing_targets[name] = str(self.media.folder / file)
        else:
            self.made.target(name, Item((self.kind(str(path)),), verbatim=False))

    def has(self, name: str) -> bool:
        """Whether there is a target of that name, be its file missing."""
        return name in self.made.corpus or name in self.files

    def known(self, name: str, where: str) -> str:
        """The name of a target.

        Raises:
            InputError: there is no such target.
        """
        if not self.has(name):
            raise InputError(
                where, expected="a name of the gallery", got=f"'{name}'",
                remedy="the gallery is of another split, or cut off: download both files again",
            )  # fmt: skip
        return name

    def query(self, query: Query) -> None:
        """Add a query that shows one of the targets, unless media are missing; see :meth:`show`.

        Raises:
            InputError: what it shows is a right target, which would be found by itself, or removed with it.
        """
        if query.reference in query.right:
            expected, got = "other pictures than the reference", f"'{query.reference}'"
            raise InputError("right targets", expected=expected, got=got, remedy=REMEDY)
        if self.show(query, query.reference, self.made.corpus.get(query.reference)):
            self.made.references[query.name] = [query.reference]

    def show(self, query: Query, file: str, reference: Item | None) -> bool:
        """Add a query, unless its reference, or the file of a right target or of a candidate, is missing.

        Args:
            query: all its targets are known.
            file: what the reference was looked for as.
            reference: what it shows; None is missing.

        Returns:
            Whether it was added.

        Raises:
            InputError: a second query of one name.
        """
        if query.name in self.made.queries or query.name in self.made.missing_queries:
            raise InputError("id", expected="each query once", got=f"'{query.name}' again", remedy=REMEDY)
        lost = next((self.files[name] for name in (*query.right, *query.candidates) if name in self.files), None)
        if reference is None or lost:
            self.made.missing_queries[query.name] = lost or self.files.get(file, str(self.media.folder / file))
            return False
        content = (*reference.media, *query.texts)
        self.made.query(query.name, Item(content, verbatim=False), query.right, query.candidates)
        if query.candidates:
            self.made.candidates[query.name] = list(query.candidates)
        if query.groups:
            self.made.groups[query.name] = dict(query.groups)
        return True
