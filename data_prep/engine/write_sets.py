"""Write what a converter makes: a table of pairs, or the folder of a retrieval set; whole or not at all."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from data_prep.converters import Ranked
from mmembed.data.tables import write_items, write_pairs
from mmembed.errors import InputError
from mmembed.evaluation.retrieval_set import read_retrieval_set
from mmembed.files import whole_directory
from mmembed.items import Pair

_BY_QUERY = ("relevance", "candidates", "candidate_groups", "groups", "references")
"""What a set says of each query."""
SHOWN = 20
"""Rows put aside that the manifest describes; the others are counted."""


@dataclass
class PutAside:
    """Rows that could not be used.

    Args:
        count: how many.
        first: the first of them in words.
    """

    count: int = 0
    first: list[str] = field(default_factory=list)

    def add(self, error: InputError) -> None:
        """Put a row aside."""
        self.count += 1
        if len(self.first) < SHOWN:
            self.first.append(str(error))


class _Stopped(Exception):  # noqa: N818 - carries an error past the table that is being written
    def __init__(self, error: InputError) -> None:
        super().__init__(str(error))
        self.error = error


def write_table(
    path: Path, made: Iterable[Pair | InputError], max_bad: float, ready: Callable[[], None] = lambda: None
) -> tuple[int, PutAside]:
    """Write the pairs that a converter makes; rows that it could not use are put aside.

    Args:
        path: the table; its folder is the media root.
        made: pairs, and errors in place of others.
        max_bad: share of the rows that may be put aside.
        ready: called when all rows are written, before the table takes the place of an earlier one.

    Returns:
        Pairs written, and what was put aside.

    Raises:
        InputError: more rows were put aside, no pair is left, or the rows cannot be read on: nothing was written then.
    """
    aside, written = PutAside(), 0

    def good() -> Iterator[Pair]:
        nonlocal written
        try:
            for pair in made:
                if isinstance(pair, InputError):
                    aside.add(pair)
                else:
                    written += 1
                    yield pair
        except InputError as error:
            raise _Stopped(error) from error
        if aside.count > max_bad * (aside.count + written):
            raise _Stopped(_too_many(path, aside, written, max_bad))
        if written:
            ready()

    try:
        write_pairs(path, good())
    except _Stopped as stopped:
        raise stopped.error from stopped
    return written, aside


def write_ranked(folder: Path, ranked: Ranked, ready: Callable[[], None] = lambda: None) -> list[Path]:
    """Write a retrieval set and read it back; ``media`` in its folder links to the media beside the folder.

    Args:
        folder: the set; it takes the place of an earlier one.
        ranked: what a converter made.
        ready: called when the set is written and whole, before it takes that place.

    Returns:
        The files written.

    Raises:
        InputError: an item that cannot be written, or a set that is not whole: nothing was written then.
    """
    root = folder.parent
    with whole_directory(folder) as part:
        (part / "media").symlink_to("../media")
        for name, items in (("queries", ranked.queries), ("corpus", ranked.corpus)):
            write_items(part / f"{name}.jsonl", items.items(), media_root=root)
        for name, rows in (
            ("relevance", ranked.relevance), ("candidates", ranked.candidates), ("references", ranked.references)
        ):  # fmt: skip
            if rows:
                _write_lines(part / f"{name}.jsonl", rows)
        for name, groups in (("groups", ranked.groups), ("candidate_groups", ranked.candidate_groups)):
            if groups:
                _write_lines(part / f"{name}.jsonl", groups, "groups")
        read_retrieval_set(part)
        ready()
    return sorted(folder.glob("*.jsonl"))


def refuse_missing(ranked: Ranked, media: Path) -> None:
    """Refuse a set that queries or targets were left out of because their media are missing.

    Raises:
        InputError: says how many, and the first that is missing.
    """
    queries, targets = ranked.missing_queries, ranked.missing_targets
    if queries or targets:
        first = next(iter((*targets.values(), *queries.values())))
        got = f"none for {len(targets)} targets and {len(queries)} queries; the first: {first}"
        remedy = "get them, or leave these out with --allow-missing: every score is then marked as one of a part"
        raise InputError(media, expected="the media of all queries and targets", got=got, remedy=remedy)


def limited(ranked: Ranked, limit: int | None) -> Ranked:
    """The set with its first queries alone, and the corpus that they need."""
    if limit is None:
        return ranked
    queries = dict(islice(ranked.queries.items(), limit))
    own = {target for query in queries for target in ranked.candidates.get(query, ())}
    corpus = ranked.corpus if ranked.whole else {name: item for name, item in ranked.corpus.items() if name in own}
    return replace(
        ranked,
        queries=queries,
        corpus=corpus,
        **{name: _of(getattr(ranked, name), queries) for name in _BY_QUERY},
    )


def _of(rows: Mapping[str, Any], queries: Mapping[str, Any]) -> dict[str, Any]:
    return {query: own for query, own in rows.items() if query in queries}


def _write_lines(path: Path, rows: Mapping[str, Any], name: str = "targets") -> None:
    with path.open("w", encoding="utf-8") as file:
        for query, values in rows.items():
            file.write(json.dumps({"query_id": query, name: values}, ensure_ascii=False, allow_nan=False) + "\n")


def _too_many(path: Path, aside: PutAside, written: int, max_bad: float) -> InputError:
    share = f"{aside.count} of {aside.count + written}; the first is: {aside.first[0]}"
    remedy = "mend the data, or allow more with --max-bad"
    return InputError(path, expected=f"at most {max_bad:.2%} of the rows put aside", got=share, remedy=remedy)
