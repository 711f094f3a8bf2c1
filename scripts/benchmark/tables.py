"""The results as a table on a terminal."""

from collections.abc import Sequence
from typing import Any

import rich.box
from rich.table import Table


def results_table(results: Sequence[dict[str, Any]]) -> Table:
    """The results, a workload a line."""
    headers = ("workload", "plain s", "ours s", "plain/ours", "range", "plain MiB", "ours MiB", "% of peak")
    table = Table(*headers, box=rich.box.SIMPLE)
    for result in results:
        table.add_row(
            result["workload"], number(result["plain"], 3), number(result["ours"], 3), number(result["ratio"], 2),
            span(result["spread"]["ratio"]), number(result["plain_peak_mb"], 0), number(result["peak_mb"], 0),
            percent(result["mfu"]),
        )  # fmt: skip
    return table


def number(value: float | None, digits: int) -> str:
    """A number, or a dash where there is none."""
    return "-" if value is None else f"{value:.{digits}f}"


def span(values: Sequence[float] | None) -> str:
    """Smallest and largest."""
    return "-" if values is None else f"{values[0]:.2f}-{values[1]:.2f}"


def percent(share: float | None) -> str:
    """A share in per cent."""
    return "-" if share is None else f"{100 * share:.0f}"
