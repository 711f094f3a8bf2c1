"""Tables of an evaluation for the terminal; all times 100."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from mmembed.evaluation.benchmark import OVERALL, Benchmark
from mmembed.evaluation.expected import Comparison, Expected, compare
from mmembed.evaluation.means import part_means
from mmembed.evaluation.scores import mean_of, our_mean, percent, what_is_less
from mmembed.evaluation.words import (
    CANDIDATE_COLUMNS,
    baseline_rows,
    candidate_rows,
    marks,
    mean_cells,
    mean_columns,
    notes,
    published,
    reasons,
    signed,
    task_name,
    title,
)  # fmt: skip

COLUMNS = ("score", "±", "chance", "blind", "published", "queries", "protocol", "passes")
"""Columns of the table of tasks, after task and metric."""
LEFT = ("task", "metric", "protocol", "passes", "mean", "compared")
"""Those that hold words."""


def table_text(scores: Mapping[str, Any], benchmark: Benchmark, *, expected: Expected | None = None) -> Table:
    """The scores as a table of at most 100 columns.

    Args:
        scores: the content of ``scores.json``.
        benchmark: brings the marks, and says what is missing.
        expected: an entry to show beside the scores.
    """
    compared = {} if expected is None else compare(scores, expected, benchmark)
    failed = [f"failed: {name}: {message}" for name, message in scores["failed"].items()]
    table = plain_table(title(scores), "\n".join([*notes(scores, benchmark, expected, compared), *failed]))
    table.add_column("task", overflow="fold", min_width=12)
    table.add_column("metric", overflow="fold", min_width=7)
    columns = columns_of(scores, benchmark, compared)
    for name in columns:
        table.add_column(name, justify="left" if name in LEFT else "right", no_wrap=True)
    for name, row in scores["tasks"].items():
        signs = "".join("✓" if mark else "✗" for mark in marks(row, benchmark.tasks[name].passing).values())
        cells = cells_of(row, compared.get(name)) | {"protocol": row["protocol_id"], "passes": signs}
        table.add_row(task_name(name, row), row["metric"], *(cells[column] for column in columns))
        for called, baseline in baseline_rows(row).items():
            cells = cells_of(baseline, None) | {"protocol": row["protocol_id"], "passes": ""}
            table.add_row(f"  {called}", row["metric"], *(cells[column] for column in columns))
    for name in scores["failed"]:
        table.add_row(f"[red]{name}[/red]", "[red]failed[/red]")
    return table


def means_table(scores: Mapping[str, Any], benchmark: Benchmark, *, expected: Expected | None = None) -> Table | None:
    """The means over modalities, categories and all as a small table; None where the benchmark has no parts.

    Args:
        scores: the content of ``scores.json``.
        benchmark: the parts.
        expected: an entry to show beside the means.
    """
    parts = part_means(scores, benchmark, expected)
    if len(parts) == 1:
        return None
    columns = mean_columns(expected)
    table = plain_table("means", "")
    table.add_column("mean", no_wrap=True)
    for name in columns:
        table.add_column(name, justify="left" if name in LEFT else "right", no_wrap=True)
    for part in parts:
        cells = mean_cells(part)
        table.add_row(f"  {part.name}" if part.is_category else part.name, *(cells[column] for column in columns))
    return table


def candidates_table(scores: Mapping[str, Any]) -> Table | None:
    """The scores among groups of candidates as a small table; None where no task has such groups.

    Args:
        scores: the content of ``scores.json``.
    """
    rows = candidate_rows(scores)
    if not rows:
        return None
    table = plain_table("right targets among the wrong ones of a group alone", "")
    for name in CANDIDATE_COLUMNS:
        words = name in ("task", "wrong ones")
        table.add_column(name, justify="left" if words else "right", overflow="fold")
    for cells in rows:
        table.add_row(*(escape(cells[column]) for column in CANDIDATE_COLUMNS))
    return table


def comparison_table(
    scores: Mapping[str, Any],
    compared: Sequence[Comparison],
    expected: Expected,
    benchmark: Benchmark,
    *,
    means: Sequence[Comparison] = (),
) -> Table:
    """Our scores beside an entry's, with a verdict for each task and each mean.

    Args:
        scores: the content of ``scores.json``.
        compared: what :func:`compare` gave of them.
        expected: the entry.
        benchmark: says whether there is a mean.
        means: what :func:`mmembed.evaluation.means.compare_means` gave.
    """
    held = "" if expected.commit is None else f", held at {expected.commit}"
    number = sum(row.ours is not None for row in compared)
    caption = [f"{number} of {len(compared)} tasks compared", *_whole_means(scores, expected, benchmark)]
    caption += [*what_is_less(scores), f"{expected.source}{held}", *([expected.note] if expected.note else [])]
    table = plain_table(f"{expected.name}: {expected.model}", "\n".join([*caption, *reasons((*compared, *means))]))
    table.add_column("task", overflow="fold", min_width=12)
    table.add_column("metric", overflow="fold", min_width=7)
    for name in ("ours", "published", "diff", "within"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("protocol", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    last = compared[-1] if means else None
    for row in (*compared, *means):
        numbers = (percent(row.ours), percent(row.published), signed(row.difference), percent(row.tolerance))
        table.add_row(row.task, row.metric, *numbers, row.protocol, row.verdict, end_section=row is last)
    return table


def columns_of(scores: Mapping[str, Any], benchmark: Benchmark, compared: Mapping[str, Comparison]) -> list[str]:
    """The columns after task and metric; what no task has is left out."""
    rows = scores["tasks"]
    blind = any(row["blind"] is not None for row in rows.values())
    passes = any(benchmark.tasks[name].passing for name in rows)
    shown = {"blind": blind or not rows, "published": bool(compared), "passes": passes or not rows}
    return [name for name in COLUMNS if shown.get(name, True)]


def cells_of(row: Mapping[str, Any], comparison: Comparison | None) -> dict[str, str]:
    """The numbers of a task by column."""
    low, high = row["interval"]
    return {
        "score": percent(row["score"]),
        "±": percent((high - low) / 2),
        "chance": percent(row["chance"]),
        "blind": percent(row["blind"]),
        "published": published(comparison),
        "queries": f"{row['queries']}",
    }


def _whole_means(scores: Mapping[str, Any], expected: Expected, benchmark: Benchmark) -> list[str]:
    """The means over all tasks of either side, compared or not; nothing where the entry has none."""
    theirs = mean_of({name: score.score for name, score in expected.scores.items()}, benchmark)
    if theirs.mean is None:
        return []
    ours = our_mean(scores, benchmark)
    said = str(ours) if ours.mean is None else f"{100 * ours.mean:.2f}"
    return [f"{OVERALL}, all {theirs.total} tasks as they are: ours {said}, published {100 * theirs.mean:.2f}"]


def plain_table(heading: str, caption: str = "") -> Table:
    """An empty table as all tables here are printed, a heading above and a caption below."""
    return Table(
        title=escape(heading),
        caption=escape(caption),
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
