"""Two evaluations beside each other, query by query: what the second changes over the first, and how sure that is.

They are read from the files that evaluations wrote, so that they are compared without model and data.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.table import Table

from mmembed.errors import InputError, nearest
from mmembed.evaluation.metrics import judge, metric_and_k, metric_values
from mmembed.evaluation.protocol import FIELDS
from mmembed.evaluation.published_fault import permuted_grades
from mmembed.evaluation.rankings import read_rankings
from mmembed.evaluation.scores import percent, read_scores
from mmembed.evaluation.statistics import Paired, paired
from mmembed.evaluation.words import signed

NUM_FIELDS = 3
"""Fields that differ, named in a message."""


@dataclass(frozen=True)
class TaskChange:
    """One task of both runs.

    Args:
        task: its name.
        metric: what was compared, e.g. ``hit@1``.
        protocol: the id of its protocol in run a.
        a: mean over the queries in run a, a fraction.
        b: the same in run b.
        change: what b changes over a.
        remarks: what a reader must know of the numbers, in words.
    """

    task: str
    metric: str
    protocol: str
    a: float
    b: float
    change: Paired
    remarks: list[str]


@dataclass(frozen=True)
class RunsCompared:
    """The tasks that two runs share, and the names of those that only one of them has."""

    tasks: list[TaskChange]
    only_a: list[str]
    only_b: list[str]


@dataclass(frozen=True)
class _Run:
    folder: Path
    scores: dict[str, Any]

    def protocol(self, name: str) -> dict[str, Any]:
        """What a task's protocol id depends on, by field."""
        fields = self.scores["protocol"]["tasks"][name]
        return {field: fields.get(field) for field in FIELDS}

    def values(self, name: str, metric: str) -> dict[str, float]:
        """The metric's value for each query of a task."""
        path = self.folder / "rankings" / f"{name}.jsonl"
        if not path.is_file():
            raise InputError(path, expected="the rankings of a task", got="no such file", remedy="evaluate it again")
        rankings, protocol = read_rankings(path), self.protocol(name)
        relevance: Sequence[Mapping[str, float]] = [ranking.relevant for ranking in rankings]
        if protocol["ndcg_fault_seed"] is not None:
            relevance = permuted_grades(relevance, protocol["ndcg_fault_seed"])
        # a short ranking is whole up to the cut-offs that were evaluated
        depth = max(*protocol["ks"], metric_and_k(protocol["metric"])[1], *(len(r.targets) for r in rankings))
        try:
            values = metric_values(judge([ranking.targets for ranking in rankings], relevance, depth), metric)
        except InputError as error:
            raise error.within(path) from None
        return dict(zip((ranking.query_id for ranking in rankings), values.tolist(), strict=True))


def compare_runs(
    folder_a: Path,
    folder_b: Path,
    *,
    metric: str | None = None,
    tasks: Sequence[str] | None = None,
    force: bool = False,
) -> RunsCompared:
    """Compare the tasks that two evaluations share, paired by query.

    Args:
        folder_a: folder of an evaluation, with ``scores.json`` and ``rankings/``.
        folder_b: folder of the other one.
        metric: what is compared; None is the metric of each task in run a.
        tasks: names of the tasks to compare; None is all that both have.
        force: compare tasks of different protocols too, and say so in their remarks.

    Raises:
        InputError: a folder without scores or rankings, no task in both, a task that is not in both, other queries on
            either side, a cut-off beyond what was ranked, or, without ``force``, protocols that differ.
    """
    a, b = (_Run(folder, read_scores(folder)) for folder in (folder_a, folder_b))
    in_a, in_b = a.scores["tasks"], b.scores["tasks"]
    common = [name for name in in_a if name in in_b]
    if not common:
        raise InputError(
            f"{folder_a} and {folder_b}",
            expected="a task in both",
            got=f"{', '.join(in_a) or 'none'} and {', '.join(in_b) or 'none'}",
            remedy="evaluate both on one benchmark",
        )
    for name in tasks or ():
        if name not in common:
            raise InputError("tasks", expected="a task of both runs", got=f"'{name}'", remedy=nearest(name, common))
    chosen = [name for name in common if tasks is None or name in tasks]
    return RunsCompared(
        tasks=[_compare_task(name, a, b, metric or in_a[name]["metric"], force) for name in chosen],
        only_a=[name for name in in_a if name not in in_b],
        only_b=[name for name in in_b if name not in in_a],
    )


def changes_table(compared: RunsCompared) -> Table:
    """The tasks as a table of at most 100 columns, times 100."""
    caption = "times 100; won and lost: queries where b is higher and lower"
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), caption=caption, caption_justify="left")
    table.add_column("task", overflow="fold", min_width=12)
    table.add_column("metric", overflow="fold", min_width=7)
    for name in ("a", "b", "b - a", "95% interval", "p", "won/lost", "protocol"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in compared.tasks:
        change = row.change
        low, high = map(signed, change.interval)
        numbers = (percent(row.a), percent(row.b), signed(change.difference), f"{low} to {high}")
        p_value = f"{change.p_value:.3f}" if change.p_value >= 0.001 else "<0.001"
        table.add_row(row.task, row.metric, *numbers, p_value, f"{change.wins}/{change.losses}", row.protocol)
    return table


def remarks(compared: RunsCompared) -> list[str]:
    """What the table does not say, one sentence a line."""
    lines = [f"{row.task}: {remark}" for row in compared.tasks for remark in row.remarks]
    only = {"a": compared.only_a, "b": compared.only_b}
    return lines + [f"only in {run}: {', '.join(names)}" for run, names in only.items() if names]


def _compare_task(name: str, a: _Run, b: _Run, metric: str, force: bool) -> TaskChange:
    said = _remarks(name, a, b, force)
    of_a, of_b = (run.values(name, metric) for run in (a, b))
    gone, new = [query for query in of_a if query not in of_b], [query for query in of_b if query not in of_a]
    if gone or new:
        raise InputError(
            f"task {name}",
            expected="the same queries in both",
            got=f"{len(gone)} only in a, {len(new)} only in b, the first is '{[*gone, *new][0]}'",
            remedy="evaluate both on the same data",
        )
    values_a, values_b = np.array(list(of_a.values())), np.array([of_b[query] for query in of_a])
    change = paired(values_a, values_b)
    return TaskChange(
        name,
        metric,
        a.scores["tasks"][name]["protocol_id"],
        float(values_a.mean()),
        float(values_b.mean()),
        change,
        said,
    )


def _remarks(name: str, a: _Run, b: _Run, force: bool) -> list[str]:
    """What is odd about comparing a task, refused here if that is its protocol."""
    said = []
    ids = [run.scores["tasks"][name]["protocol_id"] for run in (a, b)]
    protocols = [run.protocol(name) for run in (a, b)]
    if ids[0] != ids[1]:
        found = f"{ids[0]} and {ids[1]} ({_differences(*protocols)})"
        if not force:
            raise InputError(
                f"task {name}",
                expected="one protocol in both",
                got=found,
                remedy="evaluate both alike, leave it out with --tasks, or compare all the same with --force",
            )
        said.append(f"protocols differ: {found}")
    macro = sorted({protocol["macro"] for protocol in protocols} - {None})
    if macro:
        said.append(f"compared by means over queries; the score is the mean over groups of {' or '.join(macro)}")
    return said


def _differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> str:
    """The first fields that differ, with both values."""
    fields = [field for field in dict.fromkeys([*a, *b]) if a.get(field) != b.get(field)]
    shown = [f"{field}: {a.get(field)!r} and {b.get(field)!r}" for field in fields[:NUM_FIELDS]]
    more = len(fields) - len(shown)
    return ", ".join([*shown, *([f"{more} more"] if more else [])]) or "in no field that scores.json holds"
