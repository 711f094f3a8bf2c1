"""Tables of an evaluation: for the terminal, and as Markdown; all times 100."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from mmembed.evaluation.benchmark import Benchmark, Passing
from mmembed.evaluation.expected import Comparison, Expected, Verdict, compare
from mmembed.evaluation.means import PartMean, part_means
from mmembed.evaluation.scores import our_overall, overall, percent, quick_words

SIGNS: dict[Verdict, str] = {
    "ok": "✓",
    "above": "▲",
    "below": "▼",
    "missing": "–",  # noqa: RUF001
    "other metric": "≠",
    "other protocol": "≠",
    "differs": "≠",
}
COLUMNS = ("score", "±", "chance", "blind", "published", "queries", "protocol", "passes")
"""Columns of the table of tasks, after task and metric."""
LEFT = ("task", "metric", "protocol", "passes", "mean", "compared")
"""Those that hold words."""
LEGEND = "published: ✓ within its tolerance, ▲ above, ▼ below, ≠ another metric, protocol or data"


def marks(row: Mapping[str, Any], passing: Passing | None) -> dict[str, bool]:
    """What a task's row of scores reaches of what it must, in words; empty without conditions."""
    if passing is None:
        return {}
    found = {f"{passing.chance_factor:g} x chance": row["score"] >= passing.chance_factor * row["chance"]}
    if row["blind"] is not None:
        found[f"blind + {100 * passing.blind_margin:g}"] = row["score"] - row["blind"] >= passing.blind_margin
    found[f"aim {100 * passing.aim:g}"] = row["score"] >= passing.aim
    return found


def table_text(scores: Mapping[str, Any], benchmark: Benchmark, *, expected: Expected | None = None) -> Table:
    """The scores as a table of at most 100 columns.

    Args:
        scores: the content of ``scores.json``.
        benchmark: brings the marks, and says what is missing.
        expected: an entry to show beside the scores.
    """
    compared = {} if expected is None else compare(scores, expected, benchmark)
    failed = [f"failed: {name}: {message}" for name, message in scores["failed"].items()]
    table = _table(_title(scores), "\n".join([*_notes(scores, benchmark, expected), *failed]))
    table.add_column("task", overflow="fold", min_width=12)
    table.add_column("metric", overflow="fold", min_width=7)
    columns = _columns(scores, benchmark, compared)
    for name in columns:
        table.add_column(name, justify="left" if name in LEFT else "right", no_wrap=True)
    for name, row in scores["tasks"].items():
        signs = "".join("✓" if mark else "✗" for mark in marks(row, benchmark.tasks[name].passing).values())
        cells = _numbers(row, compared.get(name)) | {"protocol": row["protocol_id"], "passes": signs}
        table.add_row(name, row["metric"], *(cells[column] for column in columns))
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
    table = _table("means", "")
    table.add_column("mean", no_wrap=True)
    columns = ("tasks", "score", *(("published", "compared") if expected else ()))
    for name in columns:
        table.add_column(name, justify="left" if name in LEFT else "right", no_wrap=True)
    for part in parts:
        cells = [f"{part.ours.total}", *mean_cells(part)][: len(columns)]
        table.add_row(f"  {part.name}" if part.is_category else part.name, *cells)
    return table


def comparison_table(
    compared: Sequence[Comparison], expected: Expected, benchmark: Benchmark, *, means: Sequence[Comparison] = ()
) -> Table:
    """Our scores beside an entry's, with a verdict for each task and each mean.

    Args:
        compared: what :func:`compare` gave.
        expected: the entry.
        benchmark: says whether there is a mean.
        means: what :func:`mmembed.evaluation.means.compare_means` gave.
    """
    ours = overall({row.task: row.ours for row in compared if row.ours is not None}, benchmark)
    theirs = overall({row.task: row.published for row in compared}, benchmark)
    held = "" if expected.commit is None else f", held at {expected.commit}"
    caption = [f"ours: {ours}; published: {theirs}", f"{expected.source}{held}"]
    caption += [expected.note] if expected.note else []
    table = _table(f"{expected.name}: {expected.model}", "\n".join([*caption, *_reasons((*compared, *means))]))
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


def _reasons(compared: Iterable[Comparison]) -> list[str]:
    """Why some are not compared, each reason with those that have it."""
    found: dict[tuple[str, str], list[str]] = {}
    for row in compared:
        if row.why:
            found.setdefault((row.verdict, row.why), []).append(row.task)
    return [f"{verdict}: {', '.join(tasks)}: {why}" for (verdict, why), tasks in found.items()]


def markdown(scores: Mapping[str, Any], benchmark: Benchmark, *, expected: Expected | None = None) -> str:
    """The scores as a page of Markdown: the table, what failed, and the protocol of each task.

    Args:
        scores: the content of ``scores.json``.
        benchmark: brings the marks, and says what is missing.
        expected: an entry to show beside the scores.
    """
    compared = {} if expected is None else compare(scores, expected, benchmark)
    columns = _columns(scores, benchmark, compared)
    heads = ["task", "metric", *columns]
    lines = [
        f"# {_cell(_title(scores))}",
        "",
        *(f"- {_cell(note)}" for note in _notes(scores, benchmark, expected)),
        "",
    ]
    lines += _means_lines(scores, benchmark, expected)
    lines += _head(heads)
    for name, row in scores["tasks"].items():
        passed = marks(row, benchmark.tasks[name].passing).items()
        words = ", ".join(f"{'✓' if reached else '✗'} {condition}" for condition, reached in passed)
        cells = _numbers(row, compared.get(name)) | {"protocol": f"`{row['protocol_id']}`", "passes": words}
        lines.append(_row([f"`{name}`", row["metric"], *(cells[column] for column in columns)]))
    lines += [_row([f"`{name}`", "failed", *[""] * (len(heads) - 2)]) for name in scores["failed"]]
    if scores["failed"]:
        lines += ["", "## Failed", ""]
        lines += [f"- `{name}`: {_cell(message)}" for name, message in scores["failed"].items()]
    lines += ["", "## Protocols", ""]
    for name, protocol in scores["protocol"]["tasks"].items():
        said = [f"{key} {plain(value)}" for key, value in protocol.items() if key not in ("id", "name")]
        lines.append(f"- `{protocol['id']}` `{name}`: {_cell('; '.join(said))}")
    return "\n".join(lines) + "\n"


def signed(difference: float | None) -> str:
    """A difference of fractions times 100, with its sign."""
    return percent(None) if difference is None else f"{100 * difference:+.1f}"


def plain(value: Any) -> str:
    """A field of a protocol as one reads it."""
    if value is None or value == "" or value == []:
        return "none"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {plain(inner)}" for key, inner in value.items())
    return ", ".join(map(plain, value)) if isinstance(value, list) else str(value)


def _table(title: str, caption: str) -> Table:
    return Table(
        title=escape(title),
        caption=escape(caption),
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )


def _title(scores: Mapping[str, Any]) -> str:
    return f"{scores['protocol']['benchmark']}: {scores['protocol']['model']}"


def _notes(scores: Mapping[str, Any], benchmark: Benchmark, expected: Expected | None) -> list[str]:
    """What stands beside a table: the mean, what is left out, whose scores are beside ours."""
    notes = [str(our_overall(scores, benchmark))]
    if (quick := quick_words(scores)) is not None:
        notes.append(quick)
    if expected is not None:
        notes.append(f"{LEGEND}; {expected.name}: {expected.source}")
        notes += [expected.note] if expected.note else []
    return notes


def _columns(scores: Mapping[str, Any], benchmark: Benchmark, compared: Mapping[str, Comparison]) -> list[str]:
    """The columns after task and metric; what no task has is left out."""
    rows = scores["tasks"]
    blind = any(row["blind"] is not None for row in rows.values())
    passes = any(benchmark.tasks[name].passing for name in rows)
    shown = {"blind": blind or not rows, "published": bool(compared), "passes": passes or not rows}
    return [name for name in COLUMNS if shown.get(name, True)]


def _numbers(row: Mapping[str, Any], comparison: Comparison | None) -> dict[str, str]:
    return {
        "score": percent(row["score"]),
        "±": _half_width(row["interval"]),
        "chance": percent(row["chance"]),
        "blind": percent(row["blind"]),
        "published": "" if comparison is None else f"{percent(comparison.published)} {SIGNS[comparison.verdict]}",
        "queries": f"{row['queries']}",
    }


def mean_cells(part: PartMean) -> list[str]:
    """Our mean, the published one, and what comparing the two gave."""
    ours = percent(part.ours.mean) if part.ours.mean is not None else str(part.ours)
    found = part.comparison
    if found is None or found.difference is None:
        return [ours, percent(part.published), "" if found is None else SIGNS[found.verdict]]
    over = found.metric.removeprefix("mean of ")
    words = f"{SIGNS[found.verdict]} {signed(found.difference)}{f', over {over}' if ' of ' in over else ''}"
    return [ours, percent(part.published), words]


def _means_lines(scores: Mapping[str, Any], benchmark: Benchmark, expected: Expected | None) -> list[str]:
    parts = part_means(scores, benchmark, expected)
    if len(parts) == 1:
        return []
    heads = ["mean", "tasks", "score", *(["published", "compared"] if expected else [])]
    rows = []
    for part in parts:
        name = part.name if part.is_category else f"**{part.name}**"
        rows.append(_row([name, f"{part.ours.total}", *mean_cells(part)][: len(heads)]))
    return [*_head(heads), *rows, ""]


def _half_width(interval: tuple[float, float]) -> str:
    """Half an interval's width, times 100."""
    low, high = interval
    return percent((high - low) / 2)


def _head(names: Sequence[str]) -> list[str]:
    return [_row(names), _row("---" if name in LEFT else "---:" for name in names)]


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _cell(text: str) -> str:
    """Text that ends neither a cell nor a line, nor becomes markup."""
    for sign in ("\\", "|", "<", "`", "*"):
        text = text.replace(sign, f"\\{sign}")
    return " ".join(text.split())
