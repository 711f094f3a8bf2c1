"""Benchmark: named tasks, each a row of YAML that says what is ranked and how it is scored."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Literal

from mmembed.errors import InputError, nearest
from mmembed.evaluation.include import read_including
from mmembed.evaluation.metrics import metric_and_k
from mmembed.evaluation.region_forms import REGION_WORDS, RegionForm, check_region_words
from mmembed.items import JOINS, pieces_of
from mmembed.settings import read_settings

Candidates = Literal["shared", "local"]
Ties = Literal["index", "pessimistic"]
Reference = Literal["kept", "removed"]
Draws = Literal["queries", "pictures"]
OVERALL = "overall"
"""The part of a benchmark that is all of it."""
GRADED = ("ndcg_linear@", "ndcg_exponential@")
BLIND_NAMES = (
    *("grey_image", "blank_page", "shuffle_words", "shuffle_frames"),
    *("no_instruction", "no_image", "no_text", "no_region"),
    *("shuffled_region", "wrong_region", "crop", "coordinates"),
)
OTHER_FORMS = ("crop", "coordinates")
"""Those that take nothing, but show a region in another form: their scores stand beside the highest blinded one."""


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
class Wording:
    """Another wording of a task's prompts, in place of the row's."""

    query_instruction: str | None = None
    """Instruction of every query; empty takes it away, null leaves what the data says."""
    target_instruction: str | None = None
    """The same for targets."""
    query_layout: str | None = None
    """How a raw prompt writes a query, see :mod:`mmembed.items.layout`; null joins its parts by separators."""
    target_layout: str | None = None
    """The same for targets."""
    query_regions: RegionForm = "region"
    """How queries show their regions, see :attr:`Task.query_regions`."""
    query_text: str | None = None
    """Words around the text of a query, see :attr:`Task.query_text`."""
    target_text: str | None = None
    """Words for a target, see :attr:`Task.target_text`."""
    join: str | None = None
    """How several texts of a query become one, see :attr:`Task.join`."""

    def __post_init__(self) -> None:
        for name in ("query_layout", "target_layout"):
            if (layout := getattr(self, name)) is not None:
                try:
                    pieces_of(layout)
                except InputError as error:
                    raise error.within(name) from None
        if self.query_text is not None and self.query_text.count("{text}") != 1:
            raise InputError(
                "query_text", expected="'{text}' once", got=f"'{self.query_text}'", remedy="write where the text goes"
            )
        if self.join is not None and self.join not in JOINS:
            raise InputError("join", expected="a known join", got=f"'{self.join}'", remedy=nearest(self.join, JOINS))


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
    query_layout: str | None = None
    """How a raw prompt writes a query, see :mod:`mmembed.items.layout`; null joins its parts by separators."""
    target_layout: str | None = None
    """The same for targets."""
    query_regions: RegionForm = "region"
    """How queries show the regions of their pictures: as they are, told in ``words`` instead, ``both``, or as the
    picture cut to them (``crop``)."""
    region_words: str = REGION_WORDS
    """Words that tell a region where it is told, with ``{x0}``, ``{y0}``, ``{x1}``, ``{y1}`` for its box in pixels."""
    query_text: str | None = None
    """Words around the text of a query that a model is asked with verbatim, ``{text}`` standing for it: the query is
    then its media and these words, in this order; null leaves the writing to the model's prompt."""
    target_text: str | None = None
    """Words that a target of media alone is asked with verbatim, behind them; null leaves it to the model's prompt."""
    join: str | None = None
    """How several texts of a query become the ones that are embedded: a name of :data:`mmembed.items.JOINS`; null is
    for queries of one text."""
    candidates: Candidates = "shared"
    """Whether a query ranks the whole corpus or only candidates of its own."""
    reference: Reference = "kept"
    """Whether a query ranks the target that it shows itself (composed retrieval), or it is removed before."""
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
    interval: Draws = "queries"
    """What the bootstrap of the score's interval draws: queries, or pictures with all queries on them."""
    prompts: str = "1"
    """Version of the row's prompts; scores of different versions are not compared."""
    wordings: dict[str, Wording] = field(default_factory=dict)
    """Other versions of the prompts, by name."""
    modality: str = ""
    """What the row is counted with in a mean over a modality, e.g. ``image``; empty is none."""
    category: str = ""
    """What it is counted with in a mean within the modality, e.g. ``I-CLS``; empty is none."""
    published_as: str | None = None
    """What the published leaderboard calls it; null is its name."""
    judged: bool = True
    """Whether the answers are public; where they are not, the row is ranked for a test server, and never
    scored here."""
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
        for blinds in ("blind", "blind_targets"):
            for name in getattr(self, blinds):
                if name not in BLIND_NAMES:
                    raise InputError(
                        blinds, expected="ways to blind", got=f"'{name}'", remedy=nearest(name, BLIND_NAMES)
                    )
        metric_and_k(self.metric)
        check_region_words(self.region_words)
        if self.macro is not None and self.interval == "pictures":
            raise InputError(
                "interval", expected="'queries' for a mean over groups", got="'pictures'", remedy="drop one of the two"
            )
        if self.category and not self.modality:
            raise InputError(
                "category", expected="a modality beside it", got=f"'{self.category}' alone", remedy="write modality:"
            )
        for version in self.wordings:
            if not isinstance(version, str):
                raise InputError(
                    "wordings", expected="versions as text", got=repr(version), remedy=f'write "{version}" in quotes'
                )
        if self.prompts in self.wordings:
            got = f"'{self.prompts}', which is the row's own"
            raise InputError("wordings", expected="other versions than prompts", got=got, remedy="rename one of them")
        _ = self.wording  # which refuses layouts that cannot be read

    @property
    def wording(self) -> Wording:
        """The prompts in force."""
        return Wording(**{field.name: getattr(self, field.name) for field in fields(Wording)})

    def worded(self, version: str) -> "Task":
        """The task under another version of its prompts, where it has one; else as it is."""
        if version not in self.wordings:
            return self
        others = {name: wording for name, wording in self.wordings.items() if name != version}
        return replace(
            self, prompts=version, wordings=others | {self.prompts: self.wording}, **vars(self.wordings[version])
        )


@dataclass(frozen=True)
class Benchmark:
    """Tasks by name, in the order of the file."""

    name: str
    """The file's name without its suffix."""
    tasks: dict[str, Task]
    """The rows."""
    unjudged: dict[str, Task] = field(default_factory=dict)
    """Rows whose answers are not public, see :attr:`Task.judged`."""

    def __post_init__(self) -> None:
        parts: dict[tuple[str, str], str] = {}
        leaderboard: dict[tuple[str, str], str] = {}
        for task in self.tasks.values():
            for part in ((task.modality, ""), (task.modality, task.category)):
                if part[0]:
                    parts.setdefault(part, task.name)
            shown = (task.modality, task.published_as or task.name)
            if shown in leaderboard:
                raise InputError(
                    f"tasks.{task.name}.published_as", expected="a name of its own",
                    got=f"'{shown[1]}', as {leaderboard[shown]}", remedy="publish one of the two under another name",
                )  # fmt: skip
            leaderboard[shown] = task.name
        names = {OVERALL}
        for (modality, category), task_name in parts.items():
            name = category or modality
            if name in names:
                raise InputError(
                    f"tasks.{task_name}", expected="names of its own for modalities and categories",
                    got=f"'{name}' twice", remedy="rename one of the two",
                )  # fmt: skip
            names.add(name)

    @property
    def parts(self) -> dict[str, tuple[str, ...]]:
        """What means are taken over: each modality and its categories, then all; names of their tasks."""
        found: dict[str, tuple[str, ...]] = {}
        for modality in dict.fromkeys(task.modality for task in self.tasks.values() if task.modality):
            own = [task for task in self.tasks.values() if task.modality == modality]
            found[modality] = tuple(task.name for task in own)
            for category in dict.fromkeys(task.category for task in own if task.category):
                found[category] = tuple(task.name for task in own if task.category == category)
        return found | {OVERALL: tuple(self.tasks)}

    def only(self, names: Sequence[str]) -> "Benchmark":
        """The benchmark of these tasks alone, in its own order.

        Raises:
            InputError: a name that is no task, or one whose answers are not public.
        """
        for name in names:
            if name in self.unjudged:
                raise InputError(
                    "tasks", expected="a task whose answers are public", got=f"'{name}'",
                    remedy="rank it for its test server",
                )  # fmt: skip
            if name not in self.tasks:
                raise InputError(
                    "tasks", expected=f"a task of {self.name}", got=f"'{name}'", remedy=nearest(name, self.tasks)
                )
        return replace(self, tasks={name: task for name, task in self.tasks.items() if name in names})

    def of_modality(self, modality: str) -> "Benchmark":
        """The benchmark of the tasks of a modality.

        Raises:
            InputError: no task is of it.
        """
        return self.only(self._having("modality", modality, {task.modality for task in self.tasks.values()}))

    def worded(self, version: str) -> "Benchmark":
        """The benchmark under another version of the prompts, for the tasks that have it.

        Raises:
            InputError: no task has it.
        """
        rows = (*self.tasks.values(), *self.unjudged.values())
        known = {name for task in rows for name in (task.prompts, *task.wordings)}
        if version not in known:
            raise InputError(
                "prompts", expected="a version of the prompts that one of the tasks has", got=f"'{version}'",
                remedy=nearest(version, known),
            )  # fmt: skip
        worded = ({name: task.worded(version) for name, task in rows.items()} for rows in (self.tasks, self.unjudged))
        return Benchmark(self.name, *worded)

    def with_ndcg_fault(self, seed: int) -> "Benchmark":
        """The benchmark with the grades permuted as published, see :attr:`Task.ndcg_fault_seed`.

        Raises:
            InputError: no task has a metric that looks at grades.
        """
        graded = {name: task for name, task in self.tasks.items() if task.metric.startswith(GRADED)}
        if not graded:
            raise InputError(
                "ndcg-fault", expected="a task with a graded metric", got=f"none in {self.name}", remedy="leave it out"
            )
        faulty = {name: replace(task, ndcg_fault_seed=seed) for name, task in graded.items()}
        return replace(self, tasks=self.tasks | faulty)

    def _having(self, field_name: str, value: str, known: Collection[str]) -> list[str]:
        found = [name for name, task in self.tasks.items() if getattr(task, field_name) == value]
        if not value or not found:
            raise InputError(
                field_name, expected=f"a {field_name} of {self.name}", got=f"'{value}'",
                remedy=nearest(value, [name for name in known if name] or ["none of its rows has one"]),
            )  # fmt: skip
        return found


def read_benchmark(path: Path | str) -> Benchmark:
    """Read a benchmark: a YAML file with ``tasks``, a mapping of task name to the fields of :class:`Task`.

    ``include: [name, ...]`` beside them takes the tasks of other files of the folder first.

    Raises:
        InputError: broken YAML, a repeated key or task, an unknown field (the nearest one is named) or an unusable
            value: file, task and field.
    """
    tasks: dict[str, Task] = {}
    for file, rows in read_including(path, "tasks", "task"):
        if again := sorted(tasks.keys() & rows.keys()):
            raise InputError(
                f"{file}: tasks.{again[0]}", expected="each task once", got="the task of an included file again",
                remedy="rename it, or leave it out",
            )  # fmt: skip
        tasks |= {name: read_settings(Task, row, where=f"{file}: tasks.{name}") for name, row in rows.items()}
    judged, others = ({name: task for name, task in tasks.items() if task.judged is so} for so in (True, False))
    try:
        return Benchmark(Path(path).stem, judged, others)
    except InputError as error:
        raise error.within(path) from None
