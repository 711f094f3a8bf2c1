"""Converters: the rows of a publisher become pairs, or a retrieval set.

A converter is a function of the rows, the set's settings and its media. It says nothing about where rows come from, nor
where what it makes goes; data_prep/prepare.py does. A row that cannot be used is a :class:`mmembed.errors.InputError`
that names its number and the field. Of training rows it comes out in place of the pair, and the caller puts it aside;
in a retrieval set it is raised, for a benchmark that lacks a row is another one.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal, TypeAlias

from data_prep.source import SourceSet
from mmembed.errors import InputError
from mmembed.items import Item, Pair

Record: TypeAlias = Mapping[str, Any]
Form = Literal["records", "values", "mapping"]
"""How a JSON file holds its records: as such; as a list of values, each of which is the field ``value``; or as an
object, whose entries are the fields ``key`` and ``value``."""


@dataclass(frozen=True)
class Media:
    """Where the media of a set lie.

    Args:
        folder: below it the rows' paths; what is written names media relative to the folder above it.
        made: folder for pictures and frames that a converter writes, below ``folder``.
        roots: folders below ``folder`` in which a path is looked for, in this order.
    """

    folder: Path
    made: Path
    roots: tuple[str, ...] = ("",)

    def find(self, name: str, where: str) -> Path:
        """The medium of a path in a row.

        Raises:
            InputError: the path leaves the media, or nothing is there.
        """
        path = self.look(name, where)
        if path is None:
            remedy = "download the media again, or unpack their archive"
            got = f"no '{name}' in {self.folder}"
            raise InputError(where, expected="a file or folder of frames", got=got, remedy=remedy)
        return path

    def look(self, name: str, where: str) -> Path | None:
        """The medium of a path in a row; None where nothing is there.

        Raises:
            InputError: the path leaves the media.
        """
        refuse_outside(name, where)
        paths = ((self.folder / root / name).absolute() for root in self.roots)
        return next((path for path in paths if _exists(path)), None)

    def make(self, name: str, where: str) -> Path:
        """Where a converter writes what a row names: a path below ``made``, whether or not something is there.

        Raises:
            InputError: the path leaves that folder, or is that folder.
        """
        refuse_outside(name, where)
        return self.made / name


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name that is too long
        return False


def refuse_outside(name: str, where: str) -> None:
    """Refuse a path that is not one below the folder of the media.

    Raises:
        InputError: it is absolute, goes up, or names nothing.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise InputError(where, expected="a path below the media", got=f"'{name}'", remedy="mend the row")


@dataclass
class Ranked:
    """A retrieval set in the making: the first of several targets of one name stays, as in the published evaluation.

    Args:
        corpus: targets by their names.
        whole: every query ranks the whole corpus; else candidates of its own.
        queries: queries by their names, which are unique.
        relevance: grades of each query's relevant targets.
        candidates: what each query ranks, in order, where it ranks its own.
        candidate_groups: groups of the candidates of each query, by kind, where scores against them are wanted.
        groups: groups that each query is in, by kind, where scores of them are wanted.
        references: targets that each query shows itself.
        missing_queries: queries that are left out because media are missing, and which: of the query itself, of its
            right targets or of candidates of its own.
        missing_targets: targets that are left out because their media are missing, and which.
        judged: whether the answers are public; else no query names relevant targets.
        notes: what is odd about the data, in words, and how often; the manifest tells it.
    """

    whole: bool = False
    judged: bool = True
    queries: dict[str, Item] = field(default_factory=dict)
    corpus: dict[str, Item] = field(default_factory=dict)
    relevance: dict[str, dict[str, float]] = field(default_factory=dict)
    candidates: dict[str, list[str]] = field(default_factory=dict)
    candidate_groups: dict[str, dict[str, dict[str, list[str]]]] = field(default_factory=dict)
    groups: dict[str, dict[str, tuple[str, ...]]] = field(default_factory=dict)
    references: dict[str, list[str]] = field(default_factory=dict)
    missing_queries: dict[str, str] = field(default_factory=dict)
    missing_targets: dict[str, str] = field(default_factory=dict)
    notes: dict[str, int] = field(default_factory=dict)
    _names: dict[str, str] = field(default_factory=dict, repr=False)

    def target(self, name: str, item: Item | Callable[[], Item]) -> str:
        """Add a target unless one of that name is there; a function in its place is called only then.

        Returns:
            The name, the same string for all that give an equal one: a set may name a target a million times.
        """
        if name not in self.corpus:
            self.corpus[name] = item if isinstance(item, Item) else item()
        return self._names.setdefault(name, name)

    def note(self, words: str, count: int = 1) -> None:
        """Count something odd; nothing is noted of what never happened."""
        if count:
            self.notes[words] = self.notes.get(words, 0) + count

    def query(self, name: str, item: Item, relevant: Mapping[str, float], candidates: Iterable[str] = ()) -> None:
        """Add a query, the grades of its relevant targets and, where it ranks its own, its candidates in order."""
        self.queries[name] = item
        if self.judged:
            self.relevance[name] = dict(relevant)
        if not self.whole:
            self.candidates[name] = list(dict.fromkeys(candidates))


ToPairs: TypeAlias = Callable[[Iterator[Record], SourceSet, Media], Iterator[Pair | InputError]]
"""Rows to pairs, in order; a row that cannot be used comes out as the error that says why."""
ToRanked: TypeAlias = Callable[[Mapping[str, Iterator[Record]], SourceSet, Media], Ranked]
"""Rows of each part to a retrieval set, whole: the parts are named by the converter's ``parts``."""


@dataclass(frozen=True)
class Converter:
    """What a set's rows become.

    Args:
        pairs: makes a table of pairs; or
        ranked: makes a retrieval set.
        parts: configurations of the repository that are read beside each other (``queries``, ``qrels``, ``corpus``);
            empty reads the set's own alone, under the name ``rows``.
        columns: columns that the rows of each part must have; the set's own ``columns`` go before, for ``rows``.
        forms: how JSON files of a part hold its records, where not as such.
    """

    pairs: ToPairs | None = None
    ranked: ToRanked | None = None
    parts: tuple[str, ...] = ()
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    forms: Mapping[str, Form] = field(default_factory=dict)
