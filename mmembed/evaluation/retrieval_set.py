"""RetrievalSet: queries, corpus, graded relevance and optional candidates, checked as a whole.

On disk a set is a folder of ``queries`` and ``corpus`` (``.jsonl`` or ``.parquet``, one item a row with an ``id``),
``relevance.jsonl`` (``{"query_id": "q1", "targets": {"d7": 1}}``), where queries rank targets of their own
``candidates.jsonl`` (``{"query_id": "q1", "targets": ["d7", "d2"]}``), and where scores are wanted of parts of the
queries ``groups.jsonl`` (``{"query_id": "q1", "groups": {"category": "dress", "aspect": ["addition", "negation"]}}``),
and where they are wanted against parts of a query's candidates ``candidate_groups.jsonl`` (``{"query_id": "q1",
"groups": {"swap": {"object": ["d2", "d5"], "scene": ["d3"]}}}``). Where a query shows a picture that is in the corpus,
``references.jsonl`` names it (``{"query_id": "q1", "targets": ["d4"]}``, or no target). A set whose answers are not
public has no ``relevance.jsonl``.
"""

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from mmembed.data.stores import open_store
from mmembed.data.tables import ItemTable
from mmembed.errors import InputError
from mmembed.evaluation.benchmark import Candidates
from mmembed.files import fingerprint
from mmembed.items import Item

MAX_GRADE = 100
"""A gain of ``2**grade - 1`` must stay a number."""

T = TypeVar("T")
Groups: TypeAlias = Mapping[str, tuple[str, ...]]
"""Of one query: kind of group -> the groups it is in."""
CandidateGroups: TypeAlias = Mapping[str, Mapping[str, tuple[str, ...]]]
"""Of one query: kind of group -> group -> those of its candidates that are in it."""


@dataclass(frozen=True)
class Sample:
    """A part of a set, drawn by a seed: for a quick look, never for a table."""

    queries: int = 100
    """Queries kept."""
    distractors: int = 900
    """Targets kept beside the relevant ones, where queries share the corpus."""
    seed: int = 0
    """Draws both."""

    def __post_init__(self) -> None:
        if self.queries < 1 or self.distractors < 0:
            got = f"{self.queries} queries and {self.distractors} distractors"
            raise InputError("quick", expected="at least 1 query", got=got, remedy="100 is usual")


@dataclass(frozen=True)
class RetrievalSet:
    """What a retrieval task is made of; everything is keyed by id.

    Args:
        queries: the queries.
        corpus: all targets.
        relevance: for each query the grades of its judged targets; more than 0 is relevant, and each query has such.
            Empty where the answers are not public.
        candidates: for each query the targets it may rank; None where every query ranks the corpus.
        groups: for each query the groups it is in, by kind; empty where there are none.
        candidate_groups: for each query groups of its candidates, by kind; empty where there are none.
        references: for each query the targets that it shows itself, which may be none; empty where nobody says.

    Raises:
        InputError: an id that names nothing, a query without a relevant target, or whose candidates
            lack one, a bad grade.
    """

    queries: Mapping[str, Item]
    corpus: Mapping[str, Item]
    relevance: Mapping[str, Mapping[str, float]]
    candidates: Mapping[str, list[str]] | None = None
    groups: Mapping[str, Groups] = field(default_factory=dict)
    candidate_groups: Mapping[str, CandidateGroups] = field(default_factory=dict)
    references: Mapping[str, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("queries", "corpus"):
            if not getattr(self, name):
                raise InputError(name, expected="at least one row", got="none", remedy="prepare the data again")
        if self.judged:
            _check_covers(self.relevance, self.queries, "relevance")
        for query_id, targets in self.relevance.items():
            check_relevance(targets, self.corpus, f"relevance: query {query_id}")
        if self.candidates is not None:
            _check_covers(self.candidates, self.queries, "candidates")
            for query_id, own in self.candidates.items():
                where = f"candidates: query {query_id}"
                check_candidates(own, self.corpus, where)
                _check_answerable(own, self.relevance.get(query_id, {}), where)
        if self.groups:
            _check_covers(self.groups, self.queries, "groups")
        if self.candidate_groups:
            _check_covers(self.candidate_groups, self.queries, "candidate_groups")
            _check_among(self.candidate_groups, self.candidates or {})
        if self.references:
            _check_covers(self.references, self.queries, "references")
            for query_id, own in self.references.items():
                check_candidates(own, self.corpus, f"references: query {query_id}", none=True)

    @property
    def judged(self) -> bool:
        """Whether it brings the right answers."""
        return bool(self.relevance)

    def fingerprint(self) -> str:
        """Names the content of the set: every item with the bytes of its media, the grades and the candidates.

        Groups are left out, for they change no score of all queries and candidates; so are references, which a row
        that removes them names in its protocol.
        """
        items = (
            part for side in (self.queries, self.corpus) for i, item in side.items() for part in (i, item.fingerprint())
        )
        grades = {query: dict(targets) for query, targets in self.relevance.items()}
        own = None if self.candidates is None else dict(self.candidates)
        return fingerprint(*items, json.dumps([grades, own], sort_keys=True))

    def ranked(self, whose: Candidates) -> "RetrievalSet":
        """The set as a row ranks it: ``shared`` leaves out the candidates that another row ranks of the same data."""
        return self if whose == "local" else replace(self, candidates=None, candidate_groups={})

    def sample(self, sample: Sample) -> "RetrievalSet":
        """The part that ``sample`` draws: queries, all that they judge and may rank, and distractors.

        A query is drawn by a hash of its id, so that a set that grows keeps most of its sample.
        """
        queries = _drawn(self.queries, sample.queries, f"queries {sample.seed}")
        judged = {target for query_id in queries for target in self.relevance.get(query_id, ())}
        judged |= {target for query_id in queries for target in self.references.get(query_id, ())}
        own = {target for query_id in queries for target in (self.candidates or {}).get(query_id, ())}
        rest = [target for target in self.corpus if target not in judged]
        kept = judged | (
            own if self.candidates is not None else set(_drawn(rest, sample.distractors, f"targets {sample.seed}"))
        )
        return replace(
            self,
            queries={query_id: self.queries[query_id] for query_id in queries},
            corpus={target: item for target, item in self.corpus.items() if target in kept},
            relevance={query_id: self.relevance[query_id] for query_id in queries if self.judged},
            candidates=None if self.candidates is None else {i: self.candidates[i] for i in queries},
            groups={query_id: self.groups[query_id] for query_id in queries if self.groups},
            candidate_groups={i: self.candidate_groups[i] for i in queries if self.candidate_groups},
            references={i: self.references[i] for i in queries if self.references},
        )


def read_retrieval_set(folder: Path | str) -> RetrievalSet:
    """Read the folder of a retrieval set.

    Raises:
        InputError: a missing file, a row that cannot be read, or an id that names nothing: file, row and field.
    """
    folder = Path(folder)
    queries, corpus = (_read_unique(_table(folder, name)) for name in ("queries", "corpus"))
    path = folder / "relevance.jsonl"
    relevance = {}
    if path.exists():
        relevance = _read_rows(path, queries, lambda row, where: check_relevance(row, corpus, where))
    # one string for a target, however many queries rank it
    names = {target: target for target in corpus}

    def ranked(row: Any, where: str, none: bool = False) -> list[str]:
        return [names[target] for target in check_candidates(row, corpus, where, none=none)]

    path = folder / "candidates.jsonl"
    candidates = _read_rows(path, queries, ranked) if path.exists() else None
    path = folder / "references.jsonl"
    references = _read_rows(path, queries, partial(ranked, none=True)) if path.exists() else {}
    path = folder / "groups.jsonl"
    groups = _read_rows(path, queries, check_groups, name="groups") if path.exists() else {}
    path = folder / "candidate_groups.jsonl"
    of_candidates = _read_rows(path, queries, check_candidate_groups, name="groups") if path.exists() else {}
    try:
        return RetrievalSet(queries, corpus, relevance, candidates, groups, of_candidates, references)
    except InputError as error:
        raise error.within(folder) from None


def check_relevance(targets: Any, corpus: Mapping[str, Item], where: str) -> dict[str, float]:
    """The grades of one query, every target known, at least one of them relevant."""
    if not isinstance(targets, Mapping):
        raise InputError(
            f"{where}: targets", expected="a mapping of target id to grade", got=repr(targets), remedy='write {"d7": 1}'
        )
    for target, grade in targets.items():
        _check_known(target, corpus, f"{where}: targets", "the id of a target in the corpus")
        number = isinstance(grade, int | float) and not isinstance(grade, bool)
        if not number or not 0 <= grade <= MAX_GRADE:
            raise InputError(
                f"{where}: targets.{target}",
                expected=f"a grade of 0 to {MAX_GRADE}",
                got=repr(grade),
                remedy="0 is not relevant",
            )
    if not any(grade > 0 for grade in targets.values()):
        raise InputError(
            f"{where}: targets",
            expected="at least one target with a grade above 0",
            got="none",
            remedy="judge a target or leave the query out",
        )
    return {target: float(grade) for target, grade in targets.items()}


def check_candidates(targets: Any, corpus: Mapping[str, Item], where: str, *, none: bool = False) -> list[str]:
    """The candidates of one query, every target known and named once; none at all only where that is said."""
    if not isinstance(targets, list) or not (targets or none):
        raise InputError(
            f"{where}: targets", expected="a list of target ids", got=repr(targets), remedy='write ["d7", "d2"]'
        )
    seen: set[str] = set()
    for target in targets:
        _check_known(target, corpus, f"{where}: targets", "the id of a target in the corpus")
        if target in seen:
            raise InputError(
                f"{where}: targets", expected="each target once", got=f"'{target}' again", remedy="drop the repeat"
            )
        seen.add(target)
    return targets


def check_groups(groups: Any, where: str) -> dict[str, tuple[str, ...]]:
    """The groups of one query: kind -> names, each at most once."""
    if not isinstance(groups, Mapping):
        raise InputError(
            f"{where}: groups", expected="a mapping of kind to names", got=repr(groups),
            remedy='write {"category": "dress"}',
        )  # fmt: skip
    found: dict[str, tuple[str, ...]] = {}
    for kind, names in groups.items():
        own = (names,) if isinstance(names, str) else names
        strings = isinstance(own, list | tuple) and all(isinstance(name, str) for name in own)
        if not strings or len(set(own)) != len(own):
            raise InputError(
                f"{where}: groups.{kind}", expected="a name, or several different ones", got=repr(names),
                remedy="write strings, each once",
            )  # fmt: skip
        found[str(kind)] = tuple(own)
    return found


def check_candidate_groups(groups: Any, where: str) -> dict[str, dict[str, tuple[str, ...]]]:
    """The groups of one query's candidates: kind -> group -> ids, each at most once."""
    if not isinstance(groups, Mapping) or not all(isinstance(own, Mapping) for own in groups.values()):
        raise InputError(
            f"{where}: groups", expected="a mapping of kind to groups of target ids", got=repr(groups),
            remedy='write {"swap": {"object": ["d2", "d5"]}}',
        )  # fmt: skip
    return {str(kind): check_groups(own, f"{where}: groups.{kind}") for kind, own in groups.items()}


def _drawn(names: Collection[str], count: int, seed: str) -> list[str]:
    """``count`` of ``names`` in their own order, those of the smallest hashes."""
    # not the same seed for both sides, whose ids may be related
    ordered = sorted(names, key=lambda name: fingerprint(seed, name))
    chosen = set(ordered[:count])
    return [name for name in names if name in chosen]


def _table(folder: Path, name: str) -> Path:
    found = [path for suffix in (".jsonl", ".parquet") if (path := folder / f"{name}{suffix}").exists()]
    if len(found) != 1:
        raise InputError(
            folder / f"{name}.jsonl",
            expected=f"one file, {name}.jsonl or {name}.parquet",
            got=" and ".join(path.name for path in found) or "no such file",
            remedy="prepare the data, or check --data-root",
        )
    return found[0]


def _read_unique(path: Path) -> dict[str, Item]:
    table = ItemTable(path)
    items: dict[str, Item] = {}
    for row, (item_id, item) in enumerate(table):
        if item_id in items:
            where = f"{table.where(row)}: id"
            raise InputError(where, expected="each id once", got=f"'{item_id}' again", remedy="rename one")
        items[item_id] = item
    return items


def _read_rows(
    path: Path, queries: Mapping[str, Item], read: Callable[[Any, str], T], name: str = "targets"
) -> dict[str, T]:
    """The field ``name`` of each query, through ``read(value, where)``."""
    store = open_store(path)
    rows: dict[str, T] = {}
    for number in range(len(store)):
        record, where = store.record(number), store.where(number)
        if record.keys() != {"query_id", name}:
            got = ", ".join(record) or "none"
            raise InputError(where, expected=f"the fields query_id and {name}", got=got, remedy="write these two")
        query_id = record["query_id"]
        _check_known(query_id, queries, f"{where}: query_id", "the id of a query")
        if query_id in rows:
            got = f"'{query_id}' again"
            raise InputError(f"{where}: query_id", expected="each query once", got=got, remedy="join the rows")
        rows[query_id] = read(record[name], where)
    return rows


def _check_answerable(own: list[str], grades: Mapping[str, float], where: str) -> None:
    absent = [target for target, grade in grades.items() if grade > 0 and target not in own]
    if absent:
        raise InputError(
            where, expected="every relevant target", got=f"no '{absent[0]}'", remedy="add it, or do not judge it"
        )


def _check_among(groups: Mapping[str, CandidateGroups], candidates: Mapping[str, list[str]]) -> None:
    for query_id, kinds in groups.items():
        own = set(candidates.get(query_id, ()))
        named = (target for parts in kinds.values() for targets in parts.values() for target in targets)
        if (stranger := next((target for target in named if target not in own), None)) is not None:
            raise InputError(
                f"candidate_groups: query {query_id}", expected="candidates of the query", got=f"'{stranger}'",
                remedy="add it to candidates.jsonl, or leave it out",
            )  # fmt: skip


def _check_known(name: Any, known: Mapping[str, Item], where: str, expected: str) -> None:
    # difflib over a large corpus would take minutes
    if not isinstance(name, str) or name not in known:
        raise InputError(where, expected=expected, got=repr(name), remedy="ids are strings, written as in the table")


def _check_covers(rows: Mapping[str, Any], queries: Mapping[str, Item], where: str) -> None:
    for query_id in rows:
        _check_known(query_id, queries, where, "the id of a query")
    for query_id in queries:
        if query_id not in rows:
            raise InputError(
                where, expected=f"a row for query '{query_id}'", got="none", remedy="add it or leave the query out"
            )
