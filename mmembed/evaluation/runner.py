"""Evaluate a benchmark: task after task, each alone in its failure; embeddings, rankings and scores as whole files."""

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from mmembed import __version__
from mmembed.errors import InputError, LostProcessError
from mmembed.evaluation.benchmark import Benchmark, Task
from mmembed.evaluation.crew import Crew
from mmembed.evaluation.evaluate import TaskResult, evaluate_task
from mmembed.evaluation.means import means_row
from mmembed.evaluation.protocol import protocol_id, protocol_of
from mmembed.evaluation.rankings import write_rankings
from mmembed.evaluation.retrieval_set import RetrievalSet, Sample, read_retrieval_set
from mmembed.evaluation.rewritten import Rewritten
from mmembed.evaluation.scores import counted
from mmembed.files import whole_file, write_json
from mmembed.media.settings import MediaSettings

RESULTS = (
    *("scores.json", "leaderboard.json", "report.html", "report.md"),
    *("rankings/*.jsonl", "embeddings/*.safetensors"),
)
"""What an evaluation leaves in its folder, with what is made of it."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Evaluation:
    """What is evaluated, and where its files go.

    Args:
        benchmark: the rows.
        data_root: folder that the rows' ``data`` are relative to.
        output: folder to write to.
        model: what the scores call the model.
        identity: name of everything that the model's vectors depend on; empty where nobody can tell.
        sample: score only this part of each set; None is all.
        media: how media of blinded items are decoded.
        about: what the scores say of how they came about, see :func:`mmembed.evaluation.about.about`.
        remedy: what to do for a task whose data are not there, in words.
        why_partial: why the data that lie there for a task are not all of it, in words; None where they are.
        miniature: whether the data are drawn ones, which stand for the benchmark's in a trial.
        baselines: score the halves of composed queries beside them, see :mod:`mmembed.evaluation.baselines`.
        rewritten: texts that the queries of a task are asked with instead, by its name; the protocol stays the row's.
    """

    benchmark: Benchmark
    data_root: Path
    output: Path
    model: str
    identity: str = ""
    sample: Sample | None = None
    media: MediaSettings | None = None
    about: Mapping[str, Any] | None = None
    remedy: Callable[[Task], str] | None = None
    why_partial: Callable[[Task], str | None] | None = None
    miniature: bool = False
    baselines: bool = False
    rewritten: Mapping[str, Rewritten] = field(default_factory=dict)

    def missing(self, task: Task) -> InputError | None:
        """What to say where the folder of a task's data is not there; None where it is."""
        folder = self.data_root / task.data
        if folder.is_dir():
            return None
        remedy = "prepare it, or check --data-root" if self.remedy is None else self.remedy(task)
        return InputError(folder, expected="the folder of a retrieval set", got="no such folder", remedy=remedy)

    def read(self, task: Task) -> RetrievalSet:
        """The data of a task, as they are scored.

        Raises:
            InputError: data that are not there or cannot be used, of another revision than the row names, or not those
                whose queries were rewritten.
        """
        if (error := self.missing(task)) is not None:
            raise error
        found = read_retrieval_set(self.data_root / task.data).ranked(task.candidates)
        if not found.judged:
            raise InputError(
                self.data_root / task.data, expected="a set with relevance.jsonl", got="none: answers are not public",
                remedy="rank it for its test server",
            )  # fmt: skip
        if task.revision is not None and (revision := found.fingerprint()) != task.revision:
            raise InputError(
                f"{self.data_root / task.data}: revision", expected=task.revision, got=revision,
                remedy="prepare the data that the row names, or change the row",
            )  # fmt: skip
        if task.name in self.rewritten:
            self.rewritten[task.name].check(found)
        return found if self.sample is None else found.sample(self.sample)

    def asked(self, task: Task, retrieval_set: RetrievalSet) -> tuple[Task, RetrievalSet]:
        """A task and its data as the model is asked: as they are, or with rewritten queries."""
        if (rewritten := self.rewritten.get(task.name)) is None:
            return task, retrieval_set
        return rewritten.asked(task), rewritten.applied(retrieval_set)

    def part(self, task: Task) -> str | None:
        """Why the data of a task are not all of it, in words; None where they are, or nobody can tell."""
        return None if self.why_partial is None else self.why_partial(task)


def evaluate_benchmark(evaluation: Evaluation, crew: Crew, tasks: Sequence[str] | None = None) -> dict[str, Any]:
    """Evaluate the tasks of a benchmark one after the other; one that fails is named and the others go on.

    Writes ``scores.json`` (after each task, ``partial`` until all of the benchmark are there, whole),
    ``rankings/TASK.jsonl`` and ``embeddings/TASK.safetensors`` under the output. What an earlier run left there goes.

    Args:
        evaluation: what, and where to.
        crew: who embeds.
        tasks: names of the tasks to evaluate; None is all.

    Returns:
        The content of ``scores.json``.

    Raises:
        InputError: a task that is not in the benchmark.
        LostProcessError: another process is gone; no task can be embedded any more.
    """
    benchmark = evaluation.benchmark
    chosen = benchmark if tasks is None else benchmark.only(tasks)
    scores = empty_scores(evaluation, list(chosen.tasks))
    started = time.perf_counter()
    # what an earlier run left must not be taken for scores of this one
    remove_results(evaluation.output)
    scores["means"] = means_row(scores, benchmark)
    write_json(evaluation.output / "scores.json", scores)
    for name, task in chosen.tasks.items():
        try:
            _evaluate(task, evaluation, crew, scores)
        except LostProcessError:
            raise
        except InputError as error:
            scores["failed"][name] = str(error)
            logger.error("%s: failed: %s", name, error)
        except Exception as error:
            # whatever a library raised: the other tasks do not depend on it, and nothing is hidden
            scores["failed"][name] = f"{type(error).__name__}: {error}"
            logger.exception("%s: failed", name)
        scores["about"]["seconds"] = round(time.perf_counter() - started, 3)
        sum_up(scores, benchmark)
        write_json(evaluation.output / "scores.json", scores)
    return scores


def empty_scores(evaluation: Evaluation, chosen: Sequence[str]) -> dict[str, Any]:
    """``scores.json`` before any task was scored.

    Args:
        evaluation: what is to be scored.
        chosen: the tasks of it.
    """
    benchmark, sample = evaluation.benchmark, evaluation.sample
    about = dict(evaluation.about or {})
    if evaluation.rewritten:
        about["rewritten"] = {name: rewritten.about() for name, rewritten in evaluation.rewritten.items()}
    protocol = {
        "benchmark": benchmark.name,
        "model": evaluation.model,
        "mmembed": __version__,
        "identity": evaluation.identity,
        "quick": None if sample is None else vars(sample),
        "miniature": evaluation.miniature,
        "chosen": None if chosen == list(benchmark.tasks) else list(chosen),
        "tasks": {},
    }
    return {
        "protocol": protocol,
        "tasks": {},
        "means": {},
        "failed": {},
        "partial": True,
        "about": {**about, "timings": {}},
    }


def sum_up(scores: dict[str, Any], benchmark: Benchmark) -> None:
    """The means over the tasks that are there, and whether these are all."""
    scores["means"] = means_row(scores, benchmark)
    scores["partial"] = counted(scores).keys() != benchmark.tasks.keys()


def remove_results(output: Path) -> None:
    """Remove what an evaluation leaves in its folder, and nothing else."""
    for pattern in RESULTS:
        for path in output.glob(pattern):
            path.unlink()


def _evaluate(task: Task, evaluation: Evaluation, crew: Crew, scores: dict[str, Any]) -> None:
    started = time.perf_counter()
    retrieval_set = evaluation.read(task)
    timings = {"read": time.perf_counter() - started}
    asked, data = evaluation.asked(task, retrieval_set)
    result = evaluate_task(asked, data, crew, media=evaluation.media, baselines=evaluation.baselines)
    write_rankings(evaluation.output / "rankings" / f"{task.name}.jsonl", result.rankings)
    _write_embeddings(evaluation.output / "embeddings" / f"{task.name}.safetensors", result, retrieval_set)
    row = add_row(scores, evaluation, task, retrieval_set, result.row())
    timings |= result.seconds
    scores["about"]["timings"][task.name] = {part: round(seconds, 3) for part, seconds in timings.items()}
    said = (task.name, task.metric, 100 * result.score, row["protocol_id"], row["seconds"])
    logger.info("%s: %s %.1f, protocol %s, %.1f s", *said)


def add_row(
    scores: dict[str, Any], evaluation: Evaluation, task: Task, retrieval_set: RetrievalSet, row: Mapping[str, Any]
) -> dict[str, Any]:
    """Put the scores of a task beside its protocol, whose id and the part of the data it was are in the row."""
    protocol = protocol_of(task, retrieval_set, evaluation.sample)
    name = protocol_id(protocol)
    scores["protocol"]["tasks"][task.name] = {"id": name} | asdict(task) | protocol
    scores["tasks"][task.name] = {**row, "part": evaluation.part(task), "protocol_id": name}
    return scores["tasks"][task.name]  # type: ignore[no-any-return]


def _write_embeddings(path: Path, result: TaskResult, retrieval_set: RetrievalSet) -> None:
    names = {
        "query_ids": json.dumps(list(retrieval_set.queries)),
        "target_ids": json.dumps(list(retrieval_set.corpus)),
    }
    vectors = {"queries": result.vectors.queries.contiguous(), "targets": result.vectors.targets.contiguous()}
    with whole_file(path) as part:
        save_file(vectors, part, metadata=names)
