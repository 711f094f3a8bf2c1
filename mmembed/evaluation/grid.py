"""Grids: queries of a run beside the first targets that they found, one row a query, chosen by how well they did.

A row is the reference, what is asked of it, the targets with rank and score, and the best right one where none of these
is right. Where the run ranked the query's own candidates too (CIRR's groups of six), they are a second line.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

from mmembed.errors import InputError, nearest
from mmembed.evaluation.benchmark import Benchmark, Task
from mmembed.evaluation.metrics import metric_and_k
from mmembed.evaluation.rankings import Ranking, read_rankings
from mmembed.evaluation.report import templates
from mmembed.evaluation.retrieval_set import RetrievalSet, Sample, read_retrieval_set
from mmembed.evaluation.scoring import Scoring
from mmembed.evaluation.thumbnails import Shown, Thumbnails
from mmembed.evaluation.words import title
from mmembed.files import write_text
from mmembed.items import Item, source_fingerprint
from mmembed.progress import track

Kind: TypeAlias = Literal["right", "reference", "other"]
SELECTIONS = ("worst", "best", "random")
OF_CONCEPT = ("change", "magiclens_concept", "megapairs_concept")
"""Joins of queries whose second text is what reference and target share."""


@dataclass(frozen=True)
class Tile:
    """A target on a grid.

    Args:
        target_id: its name.
        place: its rank in words, e.g. ``#3``.
        score: its score; None where nobody kept it.
        kind: whether it is right, or what the query shows itself; everything is other on a blind grid but the latter.
        parts: its content.
    """

    target_id: str
    place: str
    score: float | None
    kind: Kind
    parts: list[Shown]


@dataclass(frozen=True)
class Row:
    """A query on a grid.

    Args:
        task: its task.
        query_id: its name.
        parts: the media that it shows.
        texts: what it asks, each with what it is called; its instruction last.
        groups: the groups it is in, by kind.
        value: the task's metric; None on a blind grid.
        result: rank or average precision in words; empty on a blind grid.
        tiles: the first targets, best first.
        missing: the best right target that is not among them; None where one of them is right, or on a blind grid.
        own: its own candidates in order, where the run ranked them too.
    """

    task: str
    query_id: str
    parts: list[Shown]
    texts: list[tuple[str, str]]
    groups: Mapping[str, tuple[str, ...]]
    value: float | None
    result: str
    tiles: list[Tile]
    missing: Tile | None
    own: list[Tile]


@dataclass(frozen=True)
class Grid:
    """The rows of one task.

    Args:
        name: the task.
        row: its row of ``scores.json``.
        rows: in the order they were selected.
        has_own: whether rows have a second line.
    """

    name: str
    row: Mapping[str, Any]
    rows: list[Row]
    has_own: bool


@dataclass(frozen=True)
class Choice:
    """What a grid shows.

    Args:
        num: queries of a task, at most.
        num_targets: targets of a query.
        select: ``worst``, ``best``, ``random`` (always the same ones), or names of queries.
        blind: hide which targets are right, for people who are to judge them.
    """

    num: int = 20
    num_targets: int = 8
    select: str = "worst"
    blind: bool = False

    def __post_init__(self) -> None:
        for name in ("num", "num_targets"):
            if getattr(self, name) < 1:
                where = {"num": "--n", "num_targets": "--k"}[name]
                raise InputError(where, expected="at least 1", got=getattr(self, name), remedy="20 and 8 are usual")


def make_grids(
    output: Path,
    scores: Mapping[str, Any],
    benchmark: Benchmark,
    data_root: Path,
    thumbnails: Thumbnails,
    choice: Choice,
) -> list[Grid]:
    """The grids of an evaluation.

    Args:
        output: its folder, with ``rankings/``.
        scores: the content of its ``scores.json``.
        benchmark: the rows to show, among those that were scored.
        data_root: folder that the rows' ``data`` are relative to.
        thumbnails: shows items.
        choice: which queries, and how.

    Raises:
        InputError: none of the rows was scored, a ranking that is not there or of other data, or an unknown query.
    """
    names = [name for name in benchmark.tasks if name in scores["tasks"]]
    if not names:
        raise InputError(output, expected=f"a task of {benchmark.name}", got="none", remedy="evaluate it first")
    lines = {name: _second_line(name, names, benchmark) for name in names}
    grids = []
    for name in names:
        if name in lines.values():
            continue
        # what was in force, which may not be the file's
        asked = scores["protocol"]["tasks"][name]
        task = replace(benchmark.tasks[name], join=asked.get("join"), query_instruction=asked["query_instruction"])
        retrieval_set = _read(data_root / task.data, task, scores)
        own = {ranking.query_id: ranking for ranking in _rankings(output, lines[name], retrieval_set)}
        maker = _Maker(task, retrieval_set, thumbnails, choice, own)
        rankings = _rankings(output, name, retrieval_set)
        rows = [maker.row(*chosen) for chosen in track(maker.selected(rankings), f"grid of {name}")]
        grids.append(Grid(name, scores["tasks"][name], rows, bool(own)))
    return grids


def write_page(path: Path, grids: Sequence[Grid], scores: Mapping[str, Any], choice: Choice) -> None:
    """Write grids as one page that needs no other file.

    Args:
        path: the page.
        grids: what it shows.
        scores: the content of ``scores.json``.
        choice: which queries were chosen, and how they are shown.
    """
    groups: dict[str, set[str]] = {}
    for row in (row for grid in grids for row in grid.rows):
        for kind, values in row.groups.items():
            groups.setdefault(kind, set()).update(values)
    named = {kind: sorted(values) for kind, values in sorted(groups.items()) if values}
    page = templates().get_template("grid.html.j2")
    write_text(path, page.render(grids=grids, title=title(scores), choice=choice, groups=named))


def _second_line(name: str, names: Sequence[str], benchmark: Benchmark) -> str | None:
    """The task that ranks the own candidates of the queries of a task that ranks them all."""
    task = benchmark.tasks[name]
    others = (benchmark.tasks[other] for other in names if other != name)
    found = (other.name for other in others if other.data == task.data and other.candidates == "local")
    return next(found, None) if task.candidates == "shared" else None


def _read(folder: Path, task: Task, scores: Mapping[str, Any]) -> RetrievalSet:
    found = read_retrieval_set(folder).ranked(task.candidates)
    quick = scores["protocol"]["quick"]
    return found if quick is None else found.sample(Sample(**quick))


def _rankings(output: Path, name: str | None, retrieval_set: RetrievalSet) -> list[Ranking]:
    if name is None:
        return []
    path = output / "rankings" / f"{name}.jsonl"
    if not path.is_file():
        raise InputError(path, expected="the rankings of the run", got="no such file", remedy="evaluate again")
    rankings = read_rankings(path)
    strangers = [ranking for ranking in rankings if ranking.query_id not in retrieval_set.queries]
    strangers += [r for r in rankings if any(target not in retrieval_set.corpus for target in r.targets)]
    if strangers or len(rankings) != len(retrieval_set.queries):
        got = f"query {strangers[0].query_id}" if strangers else f"{len(rankings)} queries"
        raise InputError(path, expected="rankings of these data", got=got, remedy="check --data-root")
    return rankings


class _Maker:
    """Makes the rows of one task."""

    def __init__(
        self,
        task: Task,
        retrieval_set: RetrievalSet,
        thumbnails: Thumbnails,
        choice: Choice,
        own: Mapping[str, Ranking],
    ) -> None:
        self.task, self.set, self.thumbnails, self.choice, self.own = task, retrieval_set, thumbnails, choice, own
        self.metric = metric_and_k(task.metric)[0]

    def selected(self, rankings: Sequence[Ranking]) -> list[tuple[Ranking, float]]:
        """The rankings to show with the metric of each, in the order that was asked for."""
        scoring = Scoring(self.task, self.set)
        by_query = {ranking.query_id: ranking for ranking in rankings}
        ordered = [by_query[query] for query in self.set.queries]
        valued = list(zip(ordered, scoring.values(scoring.judged(ordered)).tolist(), strict=True))
        select, num = self.choice.select, self.choice.num
        if select == "random":
            return random.Random(f"grid {self.task.name}").sample(valued, min(num, len(valued)))
        if select in SELECTIONS:
            return sorted(valued, key=_goodness, reverse=select == "best")[:num]
        of_query = {ranking.query_id: (ranking, value) for ranking, value in valued}
        names = select.split(",")
        if unknown := [name for name in names if name not in of_query]:
            known = (*SELECTIONS, *of_query) if len(of_query) < 10_000 else SELECTIONS
            raise InputError(
                "--select", expected=f"{', '.join(SELECTIONS)}, or names of queries of {self.task.name}",
                got=f"'{unknown[0]}'", remedy=nearest(unknown[0], known),
            )  # fmt: skip
        return [of_query[name] for name in names]

    def row(self, ranking: Ranking, value: float) -> Row:
        """A query beside what it found."""
        query, choice = self.set.queries[ranking.query_id], self.choice
        tiles = [self._tile(ranking, place) for place in range(min(choice.num_targets, len(ranking.targets)))]
        found = ranking.first_hit is not None and ranking.first_hit <= len(tiles)
        own = self.own.get(ranking.query_id)
        return Row(
            self.task.name,
            ranking.query_id,
            self.thumbnails.show(replace(query, content=query.media)) if query.media else [],
            self._texts(query),
            self.set.groups.get(ranking.query_id, {}),
            None if choice.blind else value,
            "" if choice.blind else self._result(ranking, value),
            tiles,
            None if found or choice.blind else self._missing(ranking),
            [] if own is None else [self._tile(own, place) for place in range(len(own.targets))],
        )

    def _texts(self, query: Item) -> list[tuple[str, str]]:
        texts = [part for part in query.content if isinstance(part, str) and part.strip()]
        second = "shared concept" if self.task.join in OF_CONCEPT else ""
        found = [("" if place == 0 else second, text) for place, text in enumerate(texts)]
        asked = self.task.query_instruction if self.task.query_instruction is not None else query.instruction
        return [*found, *([("instruction", asked)] if asked else [])]

    def _result(self, ranking: Ranking, value: float) -> str:
        rank = f"beyond #{len(ranking.targets)}" if ranking.first_hit is None else f"rank {ranking.first_hit}"
        return rank if self.metric in ("hit", "best_hit") else f"{self.task.metric} {100 * value:.1f}, {rank}"

    def _missing(self, ranking: Ranking) -> Tile:
        if ranking.first_hit is not None:
            return self._tile(ranking, ranking.first_hit - 1)
        best = max(ranking.relevant, key=lambda target: ranking.relevant[target])
        return Tile(best, f"beyond #{len(ranking.targets)}", None, "right", self.thumbnails.show(self.set.corpus[best]))

    def _tile(self, ranking: Ranking, place: int) -> Tile:
        target_id = ranking.targets[place]
        score = ranking.scores[place] if place < len(ranking.scores) else None
        kind: Kind = "reference" if self._is_shown(ranking.query_id, target_id) else "other"
        if target_id in ranking.relevant and not self.choice.blind:
            kind = "right"
        return Tile(target_id, f"#{place + 1}", score, kind, self.thumbnails.show(self.set.corpus[target_id]))

    def _is_shown(self, query_id: str, target_id: str) -> bool:
        """Whether a target is what the query shows: as the set says, else by the bytes of its media."""
        if self.set.references:
            return target_id in self.set.references[query_id]
        sources = [{source_fingerprint(m.source) for m in item.media} for item in
                   (self.set.queries[query_id], self.set.corpus[target_id])]  # fmt: skip
        return bool(sources[0] & sources[1])


def _goodness(valued: tuple[Ranking, float]) -> tuple[float, float]:
    """Falls with how badly a query did: by the metric, then by the rank of the first right target."""
    ranking, value = valued
    return value, -float("inf") if ranking.first_hit is None else -float(ranking.first_hit)
