"""The results as a table on a terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

import rich.box
from rich.table import Table

CAPTION = (
    "s: medians over the rounds; smallest and largest: of plain/ours; +MiB: memory above what was in use before; "
    "% of ceiling: useful operations of ours beside a matrix product of this run"
)


def results_table(results: Sequence[Mapping[str, Any]]) -> Table:
    """The results, a workload a line."""
    headers = (
        "workload", "rounds", "plain s", "ours s", "plain/ours", "smallest-\nlargest", "plain\n+MiB", "ours\n+MiB",
        "% of\nceiling",
    )  # fmt: skip
    table = Table(*headers, box=rich.box.SIMPLE, caption=CAPTION, caption_justify="left")
    for result in results:
        table.add_row(
            result["workload"], str(result["rounds"]), number(result["plain"], 3), number(result["ours"], 3),
            ratio(result), span(result["spread"]["ratio"]), number(result["plain_rise_mb"], 0),
            number(result["rise_mb"], 0), percent(result["mfu"]),
        )  # fmt: skip
    return table


def ratio(result: Mapping[str, Any]) -> str:
    """How many times faster ours is, or that the workload failed."""
    return "failed" if result["error"] else number(result["ratio"], 2)


def number(value: float | None, digits: int) -> str:
    """A number, or a dash where there is none."""
    return "-" if value is None else f"{value:.{digits}f}"


def rounded(value: float | None) -> str:
    """A number to three digits, or whole from a thousand on."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def span(values: Sequence[float] | None) -> str:
    """Smallest and largest."""
    return "-" if values is None else f"{values[0]:.2f}-{values[1]:.2f}"


def percent(share: float | None) -> str:
    """A share in per cent."""
    return "-" if share is None else f"{100 * share:.0f}"
