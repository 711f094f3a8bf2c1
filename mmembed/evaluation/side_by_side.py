"""Several evaluations of one benchmark side by side: a table for the terminal, and a page with the same queries.

They are read from the files that evaluations wrote, so that they are laid beside each other without a model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from mmembed.errors import InputError
from mmembed.evaluation.benchmark import Benchmark
from mmembed.evaluation.contact_sheets import Card, ContactSheet, Example, is_hit
from mmembed.evaluation.rankings import Ranking, read_rankings
from mmembed.evaluation.report import templates
from mmembed.evaluation.retrieval_set import read_retrieval_set
from mmembed.evaluation.scores import percent, read_scores
from mmembed.evaluation.thumbnails import Thumbnails
from mmembed.files import write_text
from mmembed.media.settings import MediaSettings


@dataclass(frozen=True)
class Run:
    """One evaluation.

    Args:
        name: what the page calls it.
        output: its folder.
        scores: the content of its ``scores.json``.
        facts: what else to say of it, by column, e.g. how long it trained.
    """

    name: str
    output: Path
    scores: Mapping[str, Any]
    facts: Mapping[str, str]


@dataclass(frozen=True)
class Answers:
    """One query and what each run found first."""

    query: Example
    found: list[Card]


@dataclass(frozen=True)
class SharedTask:
    """One task of all runs, as the page shows it."""

    name: str
    metric: str
    chance: float | None
    blinds: list[str]
    rows: list[Mapping[str, Any]]
    answers: list[Answers]


def read_runs(
    outputs: Mapping[str, Path], benchmark: Benchmark, facts: Mapping[str, Mapping[str, str]] | None = None
) -> list[Run]:
    """The evaluations in some folders, by the names that the page calls them.

    Raises:
        InputError: no scores there, or scores of another benchmark, or runs that share no task, or of which one was
            scored on other data or another part of them.
    """
    known = facts or {}
    runs = [Run(name, output, read_scores(output, benchmark), known.get(name, {})) for name, output in outputs.items()]
    if not shared_tasks(runs):
        raise InputError(
            ", ".join(outputs), expected="a task that all of them have", got="none", remedy="evaluate the same tasks"
        )
    for run, task in ((run, task) for run in runs[1:] for task in shared_tasks(runs)):
        if _data_of(run, task) != _data_of(runs[0], task):
            raise InputError(
                f"{run.name}: {task}", expected=f"the data of {runs[0].name}", got="others, or another part of them",
                remedy="evaluate all runs on the same",
            )  # fmt: skip
    return runs


def shared_tasks(runs: Sequence[Run]) -> list[str]:
    """The tasks that every run has, in order."""
    return [name for name in runs[0].scores["tasks"] if all(name in run.scores["tasks"] for run in runs)]


def runs_table(runs: Sequence[Run], task: str) -> Table:
    """One task of every run: score and interval, the same model blinded, and each run's facts; all times 100."""
    row = runs[0].scores["tasks"][task]
    blinds = blinds_of(runs, task)
    facts = facts_of(runs)
    table = Table(box=box.SIMPLE_HEAD, title=f"{task}: {row['metric']}, chance {percent(row['chance'])}")
    table.add_column("run", overflow="fold")
    for column in ("score", "interval", *blinds, *facts):
        table.add_column(column, justify="right", no_wrap=column in ("score", "interval"))
    for run in runs:
        values = run.scores["tasks"][task]
        interval = f"{percent(values['interval'][0])}-{percent(values['interval'][1])}"
        blinded = [percent(values["blinds"].get(name)) for name in blinds]
        table.add_row(run.name, percent(values["score"]), interval, *blinded, *(run.facts.get(f, "") for f in facts))
    return table


def blinds_of(runs: Sequence[Run], task: str) -> list[str]:
    """The ways in which some run was blinded, in order."""
    return list(dict.fromkeys(name for run in runs for name in run.scores["tasks"][task]["blinds"]))


def facts_of(runs: Sequence[Run]) -> list[str]:
    """The columns that some run has a fact for, in order."""
    return list(dict.fromkeys(name for run in runs for name in run.facts))


def write_page(
    path: Path,
    runs: Sequence[Run],
    benchmark: Benchmark,
    *,
    data_root: Path,
    num_examples: int = 12,
    media: MediaSettings | None = None,
) -> Path:
    """Write the page.

    Args:
        path: of the page, which needs no other file.
        runs: what to show.
        benchmark: the rows that were evaluated.
        data_root: folder that the rows' ``data`` are relative to.
        num_examples: queries shown of each task, those first on which the runs differ most.
        media: how pictures are decoded.
    """
    thumbnails = Thumbnails(media or MediaSettings())
    tasks = []
    for name in shared_tasks(runs):
        task = benchmark.tasks[name]
        sheet = ContactSheet(task, read_retrieval_set(data_root / task.data), thumbnails, num_targets=1)
        rankings = [read_rankings(run.output / "rankings" / f"{name}.jsonl") for run in runs]
        chosen = most_disputed(rankings, num_examples, sheet)
        rows = [run.scores["tasks"][name] for run in runs]
        answers = [_answers(sheet, [of_run[i] for of_run in rankings]) for i in chosen]
        tasks.append(SharedTask(name, task.metric, rows[0]["chance"], blinds_of(runs, name), rows, answers))
    page = templates().get_template("side_by_side.html.j2")
    write_text(path, page.render(benchmark=benchmark.name, runs=runs, facts=facts_of(runs), tasks=tasks))
    return path


def most_disputed(rankings: Sequence[Sequence[Ranking]], most: int, sheet: ContactSheet) -> list[int]:
    """Places of the queries on which the runs differ most: nearest to half of them right; ties in their order."""

    def distance(place: int) -> int:
        right = sum(is_hit(of_run[place], sheet.task) for of_run in rankings)
        return abs(2 * right - len(rankings))

    return sorted(range(len(rankings[0])), key=distance)[:most]


def _data_of(run: Run, task: str) -> list[Any]:
    """Names the data that a task was scored on, and the part of them."""
    return [run.scores["protocol"]["tasks"][task].get(name) for name in ("revision", "sample")]


def _answers(sheet: ContactSheet, rankings: Sequence[Ranking]) -> Answers:
    examples = [sheet.example(ranking) for ranking in rankings]
    return Answers(examples[0], [example.found[0] for example in examples])
