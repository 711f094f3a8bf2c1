"""Report of an evaluation: scores, a chart, and pictures of hits and misses on one page; a table for the terminal.

It is made from the files of an evaluation, so that it can be made again without a model.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from rich.table import Table

from mmembed.evaluation.benchmark import Benchmark, Passing, Task
from mmembed.evaluation.metrics import metric_and_k
from mmembed.evaluation.rankings import Ranking, read_rankings
from mmembed.evaluation.retrieval_set import RetrievalSet, read_retrieval_set
from mmembed.evaluation.thumbnails import Shown, Thumbnails
from mmembed.files import write_text
from mmembed.items import Item
from mmembed.media.settings import MediaSettings


@dataclass(frozen=True)
class Card:
    """A target on a contact sheet.

    Args:
        place: its rank in words, e.g. ``#3``.
        score: its score; None where the target was not among those kept.
        right: whether it is relevant.
        parts: its content.
    """

    place: str
    score: float | None
    right: bool
    parts: list[Shown]


@dataclass(frozen=True)
class Example:
    """A query on a contact sheet: its content, the first targets it found, and a right one it did not find there."""

    query_id: str
    instruction: str
    parts: list[Shown]
    found: list[Card]
    missing: Card | None


@dataclass(frozen=True)
class Section:
    """A task on the page: its row of ``scores.json``, marks, and examples of hits and misses."""

    name: str
    row: dict[str, Any]
    blind: str | None
    cutoff: int
    marks: dict[str, bool]
    num_hits: int
    hits: list[Example]
    misses: list[Example]


def write_report(
    output: Path,
    benchmark: Benchmark,
    *,
    data_root: Path,
    num_examples: int = 4,
    num_targets: int = 5,
    media: MediaSettings | None = None,
) -> Path:
    """Write ``report.html`` beside the ``scores.json`` and ``rankings/`` of an evaluation.

    Args:
        output: folder of the evaluation.
        benchmark: the rows that were evaluated.
        data_root: folder that the rows' ``data`` are relative to.
        num_examples: hits, and misses, shown of each task.
        num_targets: targets shown of each query.
        media: how pictures are decoded.

    Returns:
        The path of the page, which needs no other file.
    """
    scores = json.loads((output / "scores.json").read_text(encoding="utf-8"))
    thumbnails = Thumbnails(media or MediaSettings())
    sections = []
    for name, task in benchmark.only(list(scores["tasks"])).tasks.items():
        retrieval_set = read_retrieval_set(data_root / task.data)
        rankings = read_rankings(output / "rankings" / f"{name}.jsonl")
        sheet = ContactSheet(task, retrieval_set, thumbnails, num_targets)
        sections.append(_section(scores["tasks"][name], rankings, sheet, num_examples))
    page = _templates().get_template("report.html.j2")
    path = output / "report.html"
    write_text(path, page.render(scores=scores, protocol=scores["protocol"], sections=sections))
    return path


@dataclass(frozen=True)
class ContactSheet:
    """Draws the examples of one task."""

    task: Task
    retrieval_set: RetrievalSet
    thumbnails: Thumbnails
    num_targets: int

    def example(self, ranking: Ranking) -> Example:
        """A query beside what it found."""
        query = self.retrieval_set.queries[ranking.query_id]
        shown = min(self.num_targets, len(ranking.targets))
        found = [self._card(ranking, place) for place in range(shown)]
        return Example(
            ranking.query_id,
            _instruction(query, self.task.query_instruction),
            self.thumbnails.show(query),
            found,
            None if any(card.right for card in found) else self._missing(ranking),
        )

    def _card(self, ranking: Ranking, place: int) -> Card:
        target = ranking.targets[place]
        parts = self.thumbnails.show(self.retrieval_set.corpus[target])
        return Card(f"#{place + 1}", ranking.scores[place], target in ranking.relevant, parts)

    def _missing(self, ranking: Ranking) -> Card:
        """The best right target that is not among those shown."""
        if ranking.first_hit is not None:
            return self._card(ranking, ranking.first_hit - 1)
        best = max(ranking.relevant, key=lambda target: ranking.relevant[target])
        return Card(
            f"beyond #{len(ranking.targets)}", None, True, self.thumbnails.show(self.retrieval_set.corpus[best])
        )


def _section(row: dict[str, Any], rankings: Sequence[Ranking], sheet: ContactSheet, num_examples: int) -> Section:
    task = sheet.task
    hits = [ranking for ranking in rankings if is_hit(ranking, task)]
    misses = [ranking for ranking in rankings if not is_hit(ranking, task)]
    return Section(
        name=task.name,
        row=row,
        blind=task.blind,
        cutoff=metric_and_k(task.metric)[1],
        marks=marks(row, task.passing),
        num_hits=len(hits),
        hits=[sheet.example(ranking) for ranking in _spread(hits, num_examples)],
        misses=[sheet.example(ranking) for ranking in _spread(misses, num_examples)],
    )


def is_hit(ranking: Ranking, task: Task) -> bool:
    """Whether a right target is within the cut-off of the task's metric."""
    return ranking.first_hit is not None and ranking.first_hit <= metric_and_k(task.metric)[1]


def marks(row: Mapping[str, Any], passing: Passing | None) -> dict[str, bool]:
    """What a task's row of scores reaches of what it must, in words; empty without conditions."""
    if passing is None:
        return {}
    found = {f"{passing.chance_factor:g} x chance": row["score"] >= passing.chance_factor * row["chance"]}
    if row["blind"] is not None:
        found[f"blind + {100 * passing.blind_margin:g}"] = row["score"] - row["blind"] >= passing.blind_margin
    found[f"aim {100 * passing.aim:g}"] = row["score"] >= passing.aim
    return found


def table_text(scores: Mapping[str, Any], benchmark: Benchmark | None = None) -> Table:
    """The scores as a table of at most 100 columns, times 100.

    Args:
        scores: the content of ``scores.json``.
        benchmark: brings the marks; None leaves them out.
    """
    protocol = scores["protocol"]
    table = Table(
        title=f"{protocol['benchmark']}: {protocol['model']}", caption="partial" if scores["partial"] else None
    )
    table.add_column("task", overflow="fold", min_width=12)
    table.add_column("metric", no_wrap=True)
    for name in ("score", "chance", "blind", "queries", "corpus", "seconds"):
        table.add_column(name, justify="right", no_wrap=True)
    if benchmark is not None:
        table.add_column("passes", no_wrap=True)
    for name, row in scores["tasks"].items():
        cells = [name, row["metric"], *(_percent(row[key]) for key in ("score", "chance", "blind"))]
        cells += [str(row["queries"]), str(row["corpus"]), f"{row['seconds']:.1f}"]
        if benchmark is not None:
            cells.append(" ".join("✓" if mark else "✗" for mark in marks(row, benchmark.tasks[name].passing).values()))
        table.add_row(*cells)
    return table


def _templates() -> Environment:
    environment = Environment(
        loader=PackageLoader("mmembed.evaluation"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = _percent
    return environment


def _percent(fraction: float | None) -> str:
    return "–" if fraction is None else f"{100 * fraction:.1f}"  # noqa: RUF001


def _instruction(item: Item, given: str | None) -> str:
    return (item.instruction if given is None else given) or ""


def _spread(rankings: Sequence[Ranking], most: int) -> list[Ranking]:
    """At most ``most`` of them, evenly spread, so that the sheet is not about the first class alone."""
    count = min(most, len(rankings))
    return [rankings[i * len(rankings) // count] for i in range(count)]
