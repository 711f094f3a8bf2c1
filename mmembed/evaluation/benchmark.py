"""Benchmark: named tasks, each a row of YAML that says what is ranked and how it is scored."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mmembed.errors import InputError, nearest
from mmembed.evaluation.metrics import metric_and_k
from mmembed.settings import load_named, read_settings

Candidates = Literal["shared", "local"]
Ties = Literal["index", "pessimistic"]
BLIND_NAMES = (
    *("grey_image", "blank_page", "shuffle_words", "shuffle_frames"),
    *("no_instruction", "no_image", "no_text", "no_region"),
)


@dataclass(frozen=True)
class Passing:
    """What a score must reach to pass; a report marks each one, nothing else depends on them."""

    chance_factor: float = 3.0
    """The score is at least this many times chance."""
    blind_margin: float = 0.3
    """The score is at least this far above the blinded one, as a fraction."""
    aim: float = 0.8
    """The score one hopes for, as a fraction."""


@dataclass(frozen=True)
class Task:
    """One row of a benchmark."""

    name: str
    """The row's key; also names the files written for it."""
    data: str
    """Folder of the retrieval set, relative to the data root."""
    metric: str
    """The metric of the score, e.g. ``hit@1``."""
    query_instruction: str | None = None
    """Instruction of every query in place of its own; empty takes it away, null leaves what the data says."""
    target_instruction: str | None = None
    """The same for targets."""
    candidates: Candidates = "shared"
    """Whether a query ranks the whole corpus or only candidates of its own."""
    ks: tuple[int, ...] = (1, 5, 10)
    """Cut-offs at which all metrics are written."""
    ties: Ties = "index"
    """Which target is first among equal scores: that of the lower index, or the wrong one."""
    blind: tuple[str, ...] = ()
    """Ways to blind the queries; each is scored alone, for the scores beside the score."""
    blind_targets: tuple[str, ...] = ()
    """Ways to blind the targets; each is scored alone."""
    macro: str | None = None
    """Kind of group: the score is the mean over the groups of this kind, not over queries."""
    prompts: str = "1"
    """Version of the row's prompts; scores of different versions are not compared."""
    revision: str | None = None
    """Fingerprint the data must have; null takes them as they are, and the scores name what they were."""
    ndcg_fault_seed: int | None = None
    """Permute grades as the published VLM2Vec code does under this ``PYTHONHASHSEED``; null grades rightly."""
    passing: Passing | None = None
    """Marks for the report."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", self.name):
            raise InputError(
                "name", expected="letters, digits, '_', '.', '-'", got=f"'{self.name}'", remedy="rename the task"
            )
        if not self.ks or min(self.ks) < 1:
            raise InputError("ks", expected="cut-offs of at least 1", got=list(self.ks), remedy="write [1, 5, 10]")
        if Path(self.data).is_absolute() or ".." in Path(self.data).parts:
            raise InputError(
                "data", expected="a folder inside the data root", got=f"'{self.data}'", remedy="use --data-root"
            )
        for field in ("blind", "blind_targets"):
            for name in getattr(self, field):
                if name not in BLIND_NAMES:
                    raise InputError(
                        field, expected="ways to blind", got=f"'{name}'", remedy=nearest(name, BLIND_NAMES)
                    )
        metric_and_k(self.metric)


@dataclass(frozen=True)
class Benchmark:
    """Tasks by name, in the order of the file."""

    name: str
    """The file's name without its suffix."""
    tasks: dict[str, Task]
    """The rows."""

    def only(self, names: Sequence[str]) -> "Benchmark":
        """The benchmark of these tasks alone, in its own order.

        Raises:
            InputError: a name that is no task.
        """
        for name in names:
            if name not in self.tasks:
                raise InputError(
                    "tasks", expected=f"a task of {self.name}", got=f"'{name}'", remedy=nearest(name, self.tasks)
                )
        return Benchmark(self.name, {name: task for name, task in self.tasks.items() if name in names})


def read_benchmark(path: Path | str) -> Benchmark:
    """Read a benchmark: a YAML file with ``tasks``, a mapping of task name to the fields of :class:`Task`.

    Raises:
        InputError: broken YAML, a repeated key, an unknown field (the nearest one is named) or an unusable value: file,
            task and field.
    """
    rows = load_named(path, "tasks", "task")
    tasks = {name: read_settings(Task, row, where=f"{path}: tasks.{name}") for name, row in rows.items()}
    return Benchmark(Path(path).stem, tasks)
