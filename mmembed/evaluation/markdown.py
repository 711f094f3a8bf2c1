"""The scores of an evaluation as a page of Markdown; all times 100."""

from collections.abc import Iterable, Mapping
from typing import Any

from mmembed.evaluation.benchmark import Benchmark
from mmembed.evaluation.expected import Expected, compare
from mmembed.evaluation.means import part_means
from mmembed.evaluation.tables import LEFT, cells_of, columns_of
from mmembed.evaluation.words import (
    CANDIDATE_COLUMNS,
    baseline_rows,
    candidate_rows,
    marks,
    mean_cells,
    mean_columns,
    notes,
    protocol_words,
    task_name,
    title,
)


def markdown(scores: Mapping[str, Any], benchmark: Benchmark, *, expected: Expected | None = None) -> str:
    """The scores as a page of Markdown: the table, what failed, and the protocol of each task.

    Args:
        scores: the content of ``scores.json``.
        benchmark: brings the marks, and says what is missing.
        expected: an entry to show beside the scores.
    """
    compared = {} if expected is None else compare(scores, expected, benchmark)
    columns = columns_of(scores, benchmark, compared)
    heads = ["task", "metric", *columns]
    lines = [f"# {_cell(title(scores))}", ""]
    lines += [*(f"- {_cell(note)}" for note in notes(scores, benchmark, expected, compared)), ""]
    lines += _means_lines(scores, benchmark, expected)
    lines += _head(heads)
    for name, row in scores["tasks"].items():
        passed = marks(row, benchmark.tasks[name].passing).items()
        words = ", ".join(f"{'✓' if reached else '✗'} {condition}" for condition, reached in passed)
        cells = cells_of(row, compared.get(name)) | {"protocol": f"`{row['protocol_id']}`", "passes": words}
        lines.append(_row([f"`{task_name(name, row)}`", row["metric"], *(cells[column] for column in columns)]))
        for called, baseline in baseline_rows(row).items():
            cells = cells_of(baseline, None) | {"protocol": f"`{row['protocol_id']}`", "passes": ""}
            lines.append(_row([f"{called}", row["metric"], *(cells[column] for column in columns)]))
    lines += [_row([f"`{name}`", "failed", *[""] * (len(heads) - 2)]) for name in scores["failed"]]
    if scores["failed"]:
        lines += ["", "## Failed", ""]
        lines += [f"- `{name}`: {_cell(message)}" for name, message in scores["failed"].items()]
    lines += _candidate_lines(scores)
    lines += ["", "## Protocols", ""]
    for name, protocol in scores["protocol"]["tasks"].items():
        said = "; ".join(f"{key} {_quoted(value)}" for key, value in protocol_words(protocol).items())
        lines.append(f"- `{protocol['id']}` `{name}`: {said}")
    return "\n".join(lines) + "\n"


def _means_lines(scores: Mapping[str, Any], benchmark: Benchmark, expected: Expected | None) -> list[str]:
    parts = part_means(scores, benchmark, expected)
    if len(parts) == 1:
        return []
    columns = mean_columns(expected)
    rows = []
    for part in parts:
        cells = mean_cells(part)
        rows.append(
            _row([part.name if part.is_category else f"**{part.name}**", *(cells[column] for column in columns)])
        )
    return [*_head(["mean", *columns]), *rows, ""]


def _candidate_lines(scores: Mapping[str, Any]) -> list[str]:
    rows = candidate_rows(scores)
    if not rows:
        return []
    signs = ["---" if name in ("task", "wrong ones") else "---:" for name in CANDIDATE_COLUMNS]
    table = [_row([_cell(cells[column]) for column in CANDIDATE_COLUMNS]) for cells in rows]
    return ["", "## Among the wrong ones of a group alone", "", _row(CANDIDATE_COLUMNS), _row(signs), *table]


def _head(names: list[str]) -> list[str]:
    return [_row(names), _row("---" if name in LEFT else "---:" for name in names)]


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _quoted(words: str) -> str:
    """A string of a prompt as code, which keeps its spaces; other words as they are."""
    return f"`{words}`" if words.startswith('"') and "`" not in words else _cell(words)


def _cell(text: str) -> str:
    """Text that ends neither a cell nor a line, nor becomes markup."""
    for sign in ("\\", "|", "<", "`", "*"):
        text = text.replace(sign, f"\\{sign}")
    return " ".join(text.split())
