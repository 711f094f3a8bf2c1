"""Tables of an evaluation: for the terminal, and as Markdown; all times 100."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from mmembed.evaluation.benchmark import Benchmark, Passing
from mmembed.evaluation.expected import Comparison, Expected, Verdict, compare
from mmembed.evaluation.scores import our_overall, overall, percent, quick_words

SIGNS: dict[Verdict, str] = {
    "ok": "✓",
    "above": "▲",
    "below": "▼",
    "missing": "–",  # noqa: RUF001
    "other metric": "≠",
    "other protocol": "≠",
}
LEGEND = "published: ✓ within its tolerance, ▲ above, ▼ below, ≠ another metric or protocol"


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
    columns = ("score", "±", "chance", "blind", *(["published"] if compared else []), "queries")
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("protocol", no_wrap=True)
    table.add_column("passes", no_wrap=True)
    for name, row in scores["tasks"].items():
        signs = "".join("✓" if mark else "✗" for mark in marks(row, benchmark.tasks[name].passing).values())
        table.add_row(
            name, row["metric"], *_numbers(row, compared, name), f"{row['queries']}", row["protocol_id"], signs
        )
    for name in scores["failed"]:
        table.add_row(f"[red]{name}[/red]", "[red]failed[/red]")
    return table


def comparison_table(compared: Sequence[Comparison], expected: Expected, benchmark: Benchmark) -> Table:
    """Our scores beside an entry's, with a verdict for each task.

    Args:
        compared: what :func:`compare` gave.
        expected: the entry.
        benchmark: says whether there is a mean.
    """
    ours = overall({row.task: row.ours for row in compared if row.ours is not None}, benchmark)
    theirs = overall({row.task: row.published for row in compared}, benchmark)
    held = "" if expected.commit is None else f", held at {expected.commit}"
    caption = f"ours: {ours}; published: {theirs}\n{expected.source}{held}"
    table = _table(f"{expected.name}: {expected.model}", caption)
    table.add_column("task", overflow="fold", min_width=12)
    table.add_column("metric", overflow="fold", min_width=7)
    for name in ("ours", "published", "difference", "tolerance"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("protocol", no_wrap=True)
    table.add_column("verdict", overflow="fold", min_width=14)
    for row in compared:
        numbers = (percent(row.ours), percent(row.published), signed(row.difference), percent(row.tolerance))
        verdict = f"{row.verdict}: {row.why}" if row.why else row.verdict
        table.add_row(row.task, row.metric, *numbers, row.protocol, escape(verdict))
    return table


def markdown(scores: Mapping[str, Any], benchmark: Benchmark, *, expected: Expected | None = None) -> str:
    """The scores as a page of Markdown: the table, what failed, and the protocol of each task.

    Args:
        scores: the content of ``scores.json``.
        benchmark: brings the marks, and says what is missing.
        expected: an entry to show beside the scores.
    """
    compared = {} if expected is None else compare(scores, expected, benchmark)
    heads = ["task", "metric", "score", "±", "chance", "blind", *(["published"] if compared else [])]
    heads += ["queries", "protocol", "passes"]
    left = {"task", "metric", "protocol", "passes"}
    lines = [
        f"# {_cell(_title(scores))}",
        "",
        *(f"- {_cell(note)}" for note in _notes(scores, benchmark, expected)),
        "",
    ]
    lines += [_row(heads), _row("---" if head in left else "---:" for head in heads)]
    for name, row in scores["tasks"].items():
        passed = marks(row, benchmark.tasks[name].passing).items()
        words = ", ".join(f"{'✓' if reached else '✗'} {condition}" for condition, reached in passed)
        cells = [f"`{name}`", row["metric"], *_numbers(row, compared, name)]
        lines.append(_row([*cells, f"{row['queries']}", f"`{row['protocol_id']}`", words]))
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
    return notes


def _numbers(row: Mapping[str, Any], compared: Mapping[str, Comparison], name: str) -> list[str]:
    numbers = [percent(row["score"]), _half_width(row["interval"]), percent(row["chance"]), percent(row["blind"])]
    if compared:
        found = compared.get(name)
        numbers.append("" if found is None else f"{percent(found.published)} {SIGNS[found.verdict]}")
    return numbers


def _half_width(interval: tuple[float, float]) -> str:
    """Half an interval's width, times 100."""
    low, high = interval
    return percent((high - low) / 2)


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _cell(text: str) -> str:
    """Text that ends neither a cell nor a line, nor becomes markup."""
    for sign in ("\\", "|", "<", "`", "*"):
        text = text.replace(sign, f"\\{sign}")
    return " ".join(text.split())
