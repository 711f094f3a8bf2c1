"""Submissions: files that a benchmark's test server takes, written, and checked before anybody uploads them.

    CIRR     {"version": "rc2", "metric": "recall", "<pair>": [50 names], ...}, and a second file with "recall_subset"
             and 3 names of the query's own group (arXiv:2108.04024)
    CIRCO    {"0": [50 numbers of images], ...} (arXiv:2303.15247)
    generic  {"<query id>": ["<target id>", ...], ...}

A server refuses or, worse, scores what is not whole. Every problem is told with its query.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from mmembed.errors import InputError, nearest
from mmembed.evaluation.benchmark import Task
from mmembed.evaluation.rankings import Ranking
from mmembed.evaluation.retrieval_set import RetrievalSet
from mmembed.files import write_text

MAX_BYTES = 5_000_000
"""CIRR's server takes nothing larger."""
HEAD = ("version", "metric")


@dataclass(frozen=True)
class Format:
    """What a file of predictions looks like.

    Args:
        name: what it is called.
        length: targets of each query; None is any number.
        head: keys beside the queries, and what they hold.
        numbers: whether targets are whole numbers, else strings.
        max_bytes: what a file must be smaller than; None is any size.
        task: what the row must say for it: whether the reference is removed, whose candidates are ranked.
    """

    name: str
    length: int | None = None
    head: Mapping[str, str] = field(default_factory=dict)
    numbers: bool = False
    max_bytes: int | None = None
    task: Mapping[str, str] = field(default_factory=dict)

    def rules(self, task: Task) -> Task:
        """The row under the rules of the format."""
        return replace(task, **dict(self.task))  # type: ignore[arg-type]


CIRR = {
    metric: Format(
        f"cirr {metric}", length, {"version": "rc2", "metric": metric}, max_bytes=MAX_BYTES,
        task={"reference": "removed", "candidates": candidates},
    )
    for metric, length, candidates in (("recall", 50, "shared"), ("recall_subset", 3, "local"))
}  # fmt: skip
CIRCO = Format("circo", 50, numbers=True, max_bytes=MAX_BYTES)
GENERIC = Format("generic")
FORMATS: dict[str, tuple[Format, ...]] = {"cirr": tuple(CIRR.values()), "circo": (CIRCO,), "generic": (GENERIC,)}
"""The files of each kind of submission."""


def formats_of(name: str) -> tuple[Format, ...]:
    """The files of a kind of submission.

    Raises:
        InputError: no such kind.
    """
    if name not in FORMATS:
        raise InputError("--format", expected="a known format", got=f"'{name}'", remedy=nearest(name, FORMATS))
    return FORMATS[name]


def write_submission(path: Path, kind: Format, rankings: Sequence[Ranking]) -> None:
    """Write rankings as a file of a format, compact, for the indented one is over CIRR's limit.

    Raises:
        InputError: targets that are no numbers, where the format has these.
    """
    rows: dict[str, Any] = dict(kind.head)
    for ranking in rankings:
        names = ranking.targets[: kind.length]
        rows[ranking.query_id] = [_number(name) for name in names] if kind.numbers else names
    write_text(path, json.dumps(rows, ensure_ascii=False, separators=(",", ":")))


def read_file(path: Path) -> list[tuple[str, Any]]:
    """The keys of a file of predictions with what they hold, repeated ones too.

    Raises:
        InputError: no such file, not JSON, or no mapping.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=list)
    except FileNotFoundError:
        raise InputError(path, expected="a file of predictions", got="no such file", remedy="check the path") from None
    except IsADirectoryError:
        raise InputError(path, expected="a file of predictions", got="a folder", remedy="name a file in it") from None
    except ValueError as error:
        raise InputError(path, expected="JSON", got=str(error), remedy="write it again, with json.dump") from error
    if not isinstance(found, list) or not all(isinstance(pair, tuple) for pair in found):
        raise InputError(
            path, expected="a mapping of queries to targets", got="another value", remedy='write {"query": ["target"]}'
        )
    return found


def format_of(pairs: Sequence[tuple[str, Any]], kinds: Sequence[Format], where: Path | str) -> Format:
    """Which of the files of a submission this is, by its ``metric``.

    Raises:
        InputError: several are possible, and the file does not say which it is.
    """
    if len(kinds) == 1:
        return kinds[0]
    known = {kind.head["metric"]: kind for kind in kinds}
    metric = dict(pairs).get("metric")
    if not isinstance(metric, str) or metric not in known:
        raise InputError(
            f"{where}: metric", expected=" or ".join(f'"{name}"' for name in known),
            got="none" if metric is None else repr(metric), remedy="say what the file is for",
        )  # fmt: skip
    return known[metric]


def problems(
    pairs: Sequence[tuple[str, Any]], kind: Format, task: Task, retrieval_set: RetrievalSet, *, lenient: bool = False
) -> Iterator[InputError]:
    """Everything that is wrong with a file of predictions, in words, each problem with its query.

    Args:
        pairs: what :func:`read_file` gave.
        kind: the format it must have.
        task: says what a query may rank.
        retrieval_set: the prepared data.
        lenient: see :class:`Names`.
    """
    yield from _of_head(pairs, kind)
    queries = [(name, found) for name, found in pairs if name not in HEAD or name in retrieval_set.queries]
    seen: set[str] = set()
    names = Names(kind, retrieval_set, lenient)
    for name, found in queries:
        if name not in retrieval_set.queries:
            yield InputError(f"query {name}", expected="a query of the set", got="an unknown one", remedy="drop it")
        elif name in seen:
            yield InputError(f"query {name}", expected="each query once", got="it again", remedy="drop one of the two")
        else:
            yield from names.problems(name, found, task)
        seen.add(name)
    for name in retrieval_set.queries:
        if name not in seen:
            yield InputError(
                f"query {name}", expected="a list for every query", got="none", remedy="rank all queries of the split"
            )


def size_problem(path: Path, kind: Format) -> InputError | None:
    """What to say of a file that the server does not take for its size; None of another."""
    size = path.stat().st_size
    if kind.max_bytes is None or size < kind.max_bytes:
        return None
    return InputError(
        path, expected=f"fewer than {kind.max_bytes:,} bytes", got=f"{size:,}",
        remedy="write it compact: without indents and spaces, 50 names a query",
    )  # fmt: skip


@dataclass(frozen=True)
class Names:
    """Finds the targets of a set by the names that a file has for them.

    Args:
        kind: the format of the file.
        retrieval_set: the set.
        lenient: take a number for its string and the other way round, as for scoring a file that others wrote.
    """

    kind: Format
    retrieval_set: RetrievalSet
    lenient: bool = False

    def target(self, given: Any) -> str | None:
        """The target's id; None where it is of the wrong type or unknown."""
        kinds = (int, str) if self.lenient else (int,) if self.kind.numbers else (str,)
        if not isinstance(given, kinds) or isinstance(given, bool):
            return None
        name = str(given)
        if name in self.retrieval_set.corpus:
            return name
        padded = name.isdecimal() and (self.lenient or self.kind.numbers)
        return self._by_number.get(name.lstrip("0") or "0") if padded else None

    @cached_property
    def _by_number(self) -> dict[str, str]:
        """Targets whose names are padded numbers, by the number."""
        return {name.lstrip("0") or "0": name for name in self.retrieval_set.corpus if name.isdecimal()}

    def problems(self, query: str, found: Any, task: Task) -> Iterator[InputError]:
        """What is wrong with the list of one query."""
        where = f"query {query}"
        if not isinstance(found, list):
            yield InputError(where, expected="a list of targets", got=repr(found)[:80], remedy="write [...]")
            return
        known, kind = [self.target(given) for given in found], self.kind
        unknown = [given for given, name in zip(found, known, strict=True) if name is None]
        if kind.length is not None and len(found) != kind.length:
            yield InputError(where, expected=f"{kind.length} targets", got=len(found), remedy=f"rank {kind.length}")
        if unknown:
            # of null, too, which is no target
            yield self._unknown(where, unknown[0])
        counts = Counter(name for name in known if name is not None)
        repeated = next((name for name, times in counts.items() if times > 1), None)
        if repeated is not None:
            yield InputError(where, expected="each target once", got=f"{repeated!r} again", remedy="drop the repeat")
        yield from self._out_of_place(query, known, task)

    def _unknown(self, where: str, given: Any) -> InputError:
        if self.lenient:
            return InputError(
                where, expected="a target of the gallery", got=repr(given), remedy="rank the gallery of the split"
            )
        if self.kind.numbers and isinstance(given, str):
            remedy = "write integers: 123 for '123'"
            return InputError(where, expected="numbers of images", got=f"the string {given!r}", remedy=remedy)
        if self.kind.numbers and (isinstance(given, bool) or not isinstance(given, int)):
            return InputError(
                where, expected="numbers of images", got=repr(given), remedy="write integers, without scores"
            )
        if not self.kind.numbers and not isinstance(given, str):
            return InputError(where, expected="names as strings", got=repr(given), remedy="put it in quotes")
        remedy = "rank the gallery of the split"
        if not self.kind.numbers:
            remedy += "; names carry no folder and no extension"
        return InputError(where, expected="a target of the gallery", got=repr(given), remedy=remedy)

    def _out_of_place(self, query: str, known: Sequence[str | None], task: Task) -> Iterator[InputError]:
        """Targets that the query must not rank: its own picture, those of other groups."""
        own = self.retrieval_set.references.get(query, ()) if task.reference == "removed" else ()
        if shown := next((name for name in known if name in own), None):
            yield InputError(
                f"query {query}", expected="no reference among its predictions", got=f"{shown!r}", remedy="remove it"
            )
        group = self.retrieval_set.candidates
        if task.candidates == "local" and group is not None:
            others = [name for name in known if name is not None and name not in group[query] and name not in own]
            if others:
                yield InputError(
                    f"query {query}", expected="targets of its own group", got=f"{others[0]!r}",
                    remedy=f"rank {', '.join(group[query])}",
                )  # fmt: skip


def _of_head(pairs: Sequence[tuple[str, Any]], kind: Format) -> Iterator[InputError]:
    given = {name: value for name, value in pairs if name in HEAD}
    for name, wanted in kind.head.items():
        if given.get(name) != wanted:
            got = repr(given[name]) if name in given else "none"
            yield InputError(name, expected=f'"{wanted}"', got=got, remedy=f'write "{name}": "{wanted}"')


def _number(name: str) -> int:
    if not name.isdecimal():
        raise InputError("target", expected="the number of an image", got=f"'{name}'", remedy="use another format")
    return int(name)
