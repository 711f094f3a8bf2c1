"""Scores one expects, published or our own: entries of YAML, and a comparison that compares only like with like.

A file holds the entries of one benchmark and has its name::

    entries:
      paper:
        model: VLM2Vec/VLM2Vec-V2.0
        source: arXiv:2507.04590 table 2, 2025-07
        tolerance: 0.02
        scores:
          image_to_caption: 0.652
          question: {metric: ndcg_linear@5, score: 0.41, tolerance: 0.05}

``include: [name, ...]`` beside them takes the entries of other files of the folder; one of the same name adds to it.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from mmembed.errors import InputError, nearest
from mmembed.evaluation.benchmark import Benchmark, Task
from mmembed.evaluation.include import read_including
from mmembed.evaluation.metrics import metric_and_k
from mmembed.evaluation.scores import quick_words
from mmembed.settings import read_settings

Verdict = Literal["ok", "above", "below", "missing", "other metric", "other protocol", "differs"]


@dataclass(frozen=True)
class ExpectedScore:
    """The score of one task."""

    score: float
    """The value, as a fraction."""
    metric: str | None = None
    """Its metric; null is that of the benchmark's row."""
    tolerance: float | None = None
    """How far ours may be from it, as a fraction; null is the entry's."""
    protocol_id: str | None = None
    """The protocol it was measured under; under another one it is not compared. Null compares in any case."""
    prompts: str | None = None
    """The version of the prompts it was measured under, one that the row has; under another one it is not compared."""
    differs: str | None = None
    """What else was measured than the benchmark's row says, e.g. older data; it is shown, and not compared."""

    def __post_init__(self) -> None:
        if not 0 <= self.score <= 1:
            raise InputError(
                "score", expected="a fraction from 0 to 1", got=self.score, remedy="58.02 is written 0.5802"
            )
        if self.tolerance is not None:
            _check_tolerance(self.tolerance)
        if self.metric is not None:
            metric_and_k(self.metric)


@dataclass(frozen=True)
class Expected:
    """One entry: the scores of a model as somebody gave them."""

    name: str
    """The entry's key."""
    model: str
    """Whose scores: a Hub id, or a run."""
    source: str
    """Paper and table, or file, and the date."""
    scores: dict[str, ExpectedScore] = field(default_factory=dict)
    """By the name of the task; a bare number is a score under the row's metric."""
    means: dict[str, float] = field(default_factory=dict)
    """Published means over a modality, a category or ``overall`` whose tasks' own scores are not published."""
    commit: str | None = None
    """The last commit of this repository at which they held; null where nobody has measured it."""
    tolerance: float = 0.02
    """How far ours may be from them, as a fraction."""
    mean_tolerances: dict[str, float] = field(default_factory=dict)
    """The same for means over a modality, a category or ``overall``; a mean without one has the entry's."""
    note: str = ""
    """What one must know to compare with them."""

    def __post_init__(self) -> None:
        for tolerance in (self.tolerance, *self.mean_tolerances.values()):
            _check_tolerance(tolerance)
        for mean in self.means.values():
            ExpectedScore(mean)


@dataclass(frozen=True)
class Comparison:
    """Our score of a task beside the expected one; scores are fractions.

    Args:
        task: its name.
        metric: the metric that was expected.
        ours: our score; None where there is none to compare.
        published: the expected score.
        tolerance: how far the two may be apart.
        verdict: ``ok`` within the tolerance, ``above`` or ``below`` beyond it, ``missing`` without a score of ours;
            what has another metric or protocol is not compared, nor what ``differs`` as its entry says, which is also
            said of a version of the prompts that is not the row's own.
        why: why it was not compared; empty where it was.
        protocol: id of the protocol of our score; empty where there is none.
    """

    task: str
    metric: str
    ours: float | None
    published: float
    tolerance: float
    verdict: Verdict
    why: str = ""
    protocol: str = ""

    @property
    def difference(self) -> float | None:
        """Ours less the published one; None where they are not compared."""
        return None if self.ours is None else self.ours - self.published


def read_expected(path: Path | str) -> dict[str, Expected]:
    """Read the entries of a file by name.

    Raises:
        InputError: broken YAML, a repeated key, an unknown field (the nearest one is named) or an unusable value: file,
            entry and field.
    """
    return {name: _read_entry(entry, f"{path}: entries.{name}") for name, entry in _entries(path).items()}


def find_entry(folder: Path, benchmark: Benchmark, name: str | None = None) -> Expected:
    """An entry of the benchmark's file in a folder; the others are not read.

    Args:
        folder: holds a file named after each benchmark.
        benchmark: whose scores.
        name: the entry; None is the only one.

    Raises:
        InputError: a file that is not there or cannot be read, an entry it lacks, several without a name, or a score
            of a task or of a version of its prompts that the benchmark lacks.
    """
    path = folder / f"{benchmark.name}.yaml"
    entries = _entries(path)
    if name is None and len(entries) > 1:
        raise InputError(path, expected="one entry", got=", ".join(entries), remedy="choose one with --expected")
    name = next(iter(entries)) if name is None else name
    if name not in entries:
        raise InputError(path, expected="an entry of the file", got=f"'{name}'", remedy=nearest(name, entries))
    entry = _read_entry(entries[name], f"{path}: entries.{name}")
    _check_known(entry.scores, benchmark.tasks, f"{path}: entries.{name}.scores", f"a task of {benchmark.name}")
    for key, score in entry.scores.items():
        if score.prompts is not None:
            task, where = benchmark.tasks[key], f"{path}: entries.{name}.scores.{key}.prompts"
            _check_known([score.prompts], [task.prompts, *task.wordings], where, f"a version of the prompts of {key}")
    for key in ("means", "mean_tolerances"):
        where = f"{path}: entries.{name}.{key}"
        _check_known(getattr(entry, key), benchmark.parts, where, f"a mean of {benchmark.name}")
    return entry


def compare(
    scores: Mapping[str, Any], expected: Expected, benchmark: Benchmark, *, force: bool = False
) -> dict[str, Comparison]:
    """Every expected score of the chosen tasks beside ours, by task.

    Args:
        scores: the content of ``scores.json``.
        expected: the entry.
        benchmark: gives the metric where the entry names none; its rows have the prompts of the file.
        force: compare across protocols too, quick evaluations, parts of the data and what differs; never across
            metrics, and never a miniature.
    """
    chosen = scores["protocol"]["chosen"]
    return {
        name: _compare(benchmark.tasks[name], published, scores, expected, force)
        for name, published in expected.scores.items()
        if chosen is None or name in chosen
    }


def _compare(
    task: Task, published: ExpectedScore, scores: Mapping[str, Any], expected: Expected, force: bool
) -> Comparison:
    name, metric = task.name, published.metric or task.metric
    tolerance = expected.tolerance if published.tolerance is None else published.tolerance
    row = scores["tasks"].get(name)

    def judged(verdict: Verdict, why: str = "", ours: float | None = None) -> Comparison:
        protocol = "" if row is None else row["protocol_id"]
        return Comparison(name, metric, ours, published.score, tolerance, verdict, why, protocol)

    if row is None:
        return judged("missing", scores["failed"].get(name, "not evaluated"))
    if row["metric"] != metric:
        return judged("other metric", f"ours is {row['metric']}")
    if scores["protocol"]["miniature"]:
        return judged("other protocol", "ours is a miniature")
    if force:
        return judged(verdict_of(row["score"], published.score, tolerance), ours=row["score"])
    if (quick := quick_words(scores)) is not None:
        return judged("other protocol", f"ours is {quick}")
    if row["part"] is not None:
        return judged("other protocol", f"ours is on a part of its data: {row['part']}")
    if published.protocol_id not in (None, row["protocol_id"]):
        return judged("other protocol", f"ours is {row['protocol_id']}, expected under {published.protocol_id}")
    if published.differs is not None:
        return judged("differs", published.differs)
    prompts = scores["protocol"]["tasks"][name]["prompts"]
    if published.prompts not in (None, prompts):
        # the entry says so only of the row's own prompts; others were chosen
        verdict: Verdict = "other protocol" if published.prompts == task.prompts else "differs"
        return judged(verdict, f"ours has prompts {prompts}, published under {published.prompts}")
    return judged(verdict_of(row["score"], published.score, tolerance), ours=row["score"])


def verdict_of(ours: float, published: float, tolerance: float) -> Verdict:
    """Whether two fractions are as near as they must be: ``ok``, ``above`` or ``below``."""
    # 0.9 is 0.1 from 1.0, which binary fractions deny
    if abs(ours - published) <= tolerance + 1e-9:
        return "ok"
    return "above" if ours > published else "below"


def _entries(path: Path | str) -> dict[str, dict[str, Any]]:
    """The fields of each entry, those of included files first."""
    found: dict[str, dict[str, Any]] = {}
    for file, entries in read_including(path, "entries", "entry"):
        for entry, fields in entries.items():
            found[entry] = _both(found.get(entry, {}), fields, f"{file}: entries.{entry}")
    return found


def _both(one: Mapping[str, Any], other: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The fields of an entry from two files: mappings are joined, of other values the later counts."""
    both = {**one, **other}
    for name in one.keys() & other.keys():
        if isinstance(one[name], Mapping) and isinstance(other[name], Mapping):
            again = sorted(one[name].keys() & other[name].keys())
            if name == "scores" and again:
                raise InputError(
                    f"{where}.scores.{again[0]}", expected="each task once", got="that of an included file again",
                    remedy="leave one of the two out",
                )  # fmt: skip
            both[name] = {**one[name], **other[name]}
    return both


def _check_known(names: Iterable[str], known: Collection[str], where: str, what: str) -> None:
    for name in names:
        if name not in known:
            raise InputError(where, expected=what, got=f"'{name}'", remedy=nearest(name, known))


def _read_entry(entry: Mapping[str, Any], where: str) -> Expected:
    given = entry.get("scores", {} if entry.get("means") else None)
    if not isinstance(given, Mapping) or not (given or entry.get("means")):
        raise InputError(
            f"{where}.scores", expected="a mapping of task to score", got=repr(given), remedy="write task: 0.582 lines"
        )
    scores = {str(task): score if isinstance(score, Mapping) else {"score": score} for task, score in given.items()}
    try:
        return read_settings(Expected, {**entry, "scores": scores}, where=where)
    except InputError:
        # a score that is refused alone, too, is named with its task
        for task, score in scores.items():
            read_settings(ExpectedScore, score, where=f"{where}.scores.{task}")
        raise


def _check_tolerance(tolerance: float) -> None:
    if not 0 <= tolerance < 1:
        raise InputError(
            "tolerance", expected="a fraction from 0 to 1", got=tolerance, remedy="half a point is written 0.005"
        )
