"""Report of an evaluation: one page of scores, charts and pictures of hits and misses, and the table as Markdown.

It is made from the files of an evaluation, so that it can be made again without a model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from mmembed.evaluation.benchmark import Benchmark
from mmembed.evaluation.contact_sheets import ContactSheet, Example, is_hit, spread
from mmembed.evaluation.expected import Comparison, Expected, compare
from mmembed.evaluation.markdown import markdown
from mmembed.evaluation.means import part_means
from mmembed.evaluation.metrics import metric_and_k
from mmembed.evaluation.rankings import Ranking, read_rankings
from mmembed.evaluation.retrieval_set import read_retrieval_set
from mmembed.evaluation.scores import our_mean, percent, read_scores, what_is_less
from mmembed.evaluation.thumbnails import Thumbnails
from mmembed.evaluation.words import (
    SIGNS,
    baseline_rows,
    marks,
    mean_cells,
    mean_columns,
    of_composed,
    protocol_words,
    signed,
    task_name,
    title,
    within,
)
from mmembed.files import write_text
from mmembed.media.settings import MediaSettings

NUM_OPEN = 12
"""Most tasks whose contact sheets are open at first."""
NUM_RATES = 10
"""Most ranks in the chart of hits."""


@dataclass(frozen=True)
class Section:
    """A task on the page.

    Args:
        name: the task.
        shown: what tables call it.
        row: its row of ``scores.json``.
        protocol: its protocol there.
        marks: what it reaches of what it must.
        comparison: its score beside the expected one; None without.
        cutoff: how many of the first targets a hit is looked for in.
        hit_rates: fraction of queries with a right target in the first 1, 2, ...
        num_hits: how many queries are hits.
        hits: examples of them.
        misses: examples of the others.
    """

    name: str
    shown: str
    row: Mapping[str, Any]
    protocol: Mapping[str, Any]
    marks: Mapping[str, bool]
    comparison: Comparison | None
    cutoff: int
    hit_rates: list[float]
    num_hits: int
    hits: list[Example]
    misses: list[Example]

    @property
    def passes(self) -> bool:
        """Whether it reaches all that it must."""
        return all(self.marks.values())

    @property
    def examples(self) -> list[Example]:
        """All that are shown."""
        return [*self.misses, *self.hits]


def write_report(
    output: Path,
    benchmark: Benchmark,
    *,
    data_root: Path,
    num_examples: int = 4,
    num_targets: int = 5,
    media: MediaSettings | None = None,
    expected: Expected | None = None,
) -> Path:
    """Write ``report.html`` and ``report.md`` beside the ``scores.json`` and ``rankings/`` of an evaluation.

    Args:
        output: folder of the evaluation.
        benchmark: the rows that were evaluated.
        data_root: folder that the rows' ``data`` are relative to.
        num_examples: hits, and misses, shown of each task.
        num_targets: targets shown of each query.
        media: how pictures are decoded.
        expected: an entry to show beside the scores.

    Returns:
        The path of the page, which needs no other file.

    Raises:
        InputError: scores that are not there, or of another benchmark.
    """
    scores = read_scores(output, benchmark)
    compared = {} if expected is None else compare(scores, expected, benchmark)
    thumbnails = Thumbnails(media or MediaSettings())
    sections = []
    for name in scores["tasks"]:
        # its prompts are those that were in force, which may not be the file's
        asked = scores["protocol"]["tasks"][name]["query_instruction"]
        task = replace(benchmark.tasks[name], query_instruction=asked)
        sheet = ContactSheet(task, read_retrieval_set(data_root / task.data), thumbnails, num_targets)
        rankings = read_rankings(output / "rankings" / f"{name}.jsonl")
        sections.append(_section(sheet, rankings, scores, compared.get(name), num_examples))
    page = templates().get_template("report.html.j2")
    path = output / "report.html"
    text = page.render(
        scores=scores,
        protocol=scores["protocol"],
        sections=sections,
        title=title(scores),
        mean=our_mean(scores, benchmark),
        parts=part_means(scores, benchmark, expected),
        mean_columns=mean_columns(expected),
        what_is_less=what_is_less(scores),
        of_composed=of_composed(scores),
        expected=expected,
        compared=compared,
        groups=_groups(sections),
        num_open=NUM_OPEN,
    )
    write_text(path, text)
    write_text(output / "report.md", markdown(scores, benchmark, expected=expected))
    return path


def _section(
    sheet: ContactSheet,
    rankings: Sequence[Ranking],
    scores: Mapping[str, Any],
    comparison: Comparison | None,
    num_examples: int,
) -> Section:
    task = sheet.task
    row = scores["tasks"][task.name]
    hits = [ranking for ranking in rankings if is_hit(ranking, task)]
    misses = [ranking for ranking in rankings if not is_hit(ranking, task)]
    return Section(
        name=task.name,
        shown=task_name(task.name, row),
        row=row,
        protocol=scores["protocol"]["tasks"][task.name],
        marks=marks(row, task.passing),
        comparison=comparison,
        cutoff=metric_and_k(task.metric)[1],
        hit_rates=_hit_rates(rankings),
        num_hits=len(hits),
        hits=[sheet.example(ranking) for ranking in spread(hits, num_examples)],
        misses=[sheet.example(ranking) for ranking in spread(misses, num_examples)],
    )


def _hit_rates(rankings: Sequence[Ranking]) -> list[float]:
    """Fraction of queries with a right target in the first k, for every small k that the rankings reach."""
    depth = min(NUM_RATES, max(len(ranking.targets) for ranking in rankings))
    firsts = [ranking.first_hit for ranking in rankings if ranking.first_hit is not None]
    return [sum(first <= k for first in firsts) / len(rankings) for k in range(1, depth + 1)]


def _groups(sections: Sequence[Section]) -> dict[str, list[str]]:
    """The values of each kind of group that some example on the page is in."""
    found: dict[str, set[str]] = {}
    for example in (example for section in sections for example in section.examples):
        for kind, values in example.groups.items():
            found.setdefault(kind, set()).update(values)
    return {kind: sorted(values) for kind, values in sorted(found.items())}


def templates() -> Environment:
    """The templates of pages, and what they may call."""
    environment = Environment(
        loader=PackageLoader("mmembed.evaluation"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": percent,
        "baseline_rows": baseline_rows,
        "signed": signed,
        "sign": SIGNS.__getitem__,
        "mean_cells": mean_cells,
        "protocol_words": protocol_words,
        "within": within,
    }
    return environment
