"""Evaluate an embedder on tasks of mteb: mteb's own results below the output, and ``scores.json`` as ours."""

import logging
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError

import mteb
from datasets.exceptions import DatasetNotFoundError
from mteb.abstasks import AbsTask
from mteb.results import TaskResult
from mteb.types import PromptType

from mmembed import __version__
from mmembed.errors import InputError, LostProcessError
from mmembed.evaluation.benchmark import OVERALL
from mmembed.evaluation.protocol import protocol_id
from mmembed.evaluation.runner import remove_results
from mmembed.files import write_json
from mmembed.serve.mteb.encoder import MtebEncoder
from mmembed.serve.mteb.named import choose_tasks, reads

logger = logging.getLogger(__name__)

TYPES = "task types"
"""The mean over types of tasks of the means of their tasks."""
RESULTS = "mteb"
"""Folder below the output where mteb keeps what it found."""
VERSION = 1
"""Counts up when rows of mteb are read otherwise."""
_NOT_METRICS = ("main_score", "hf_subset", "languages")


def evaluate_tasks(
    encoder: MtebEncoder,
    benchmark: str,
    tasks: Sequence[AbsTask],
    output: Path,
    *,
    chosen: Sequence[str] | None = None,
    model: str = "",
    identity: str = "",
    about: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Evaluate tasks one after the other; one that fails is named, and the others go on.

    ``scores.json`` is written after each task. What mteb found lies below ``mteb/`` of the output, by the model's name
    and revision; splits and subsets that are there are not evaluated again.

    Args:
        encoder: the model.
        benchmark: what the scores call the tasks.
        tasks: all tasks of it.
        output: folder to write to.
        chosen: names of those to evaluate; None is all.
        model: what the scores call the model.
        identity: name of everything that its vectors depend on.
        about: what the scores say of how they came about.

    Returns:
        The content of ``scores.json``.

    Raises:
        LostProcessError: another process of the run is gone.
    """
    own = choose_tasks(tasks, chosen)
    scores: dict[str, Any] = {
        "protocol": {
            "benchmark": f"mteb:{benchmark}", "model": model, "mmembed": __version__, "mteb": mteb.__version__,
            "identity": identity, "quick": None, "miniature": False,
            "chosen": None if len(own) == len(tasks) else [task.metadata.name for task in own], "tasks": {},
        },
        "tasks": {}, "means": {}, "failed": {}, "partial": True, "about": dict(about or {}),
    }  # fmt: skip
    remove_results(output)
    _sum_up(scores, tasks)
    write_json(output / "scores.json", scores)
    cache = mteb.ResultCache(output / RESULTS)
    started = time.perf_counter()
    for task in own:
        _add(scores, encoder, task, cache)
        scores["about"]["seconds"] = round(time.perf_counter() - started, 3)
        _sum_up(scores, tasks)
        write_json(output / "scores.json", scores)
    return scores


def _add(scores: dict[str, Any], encoder: MtebEncoder, task: AbsTask, cache: mteb.ResultCache) -> None:
    """Evaluate a task and put its scores, or why there are none, among the others'."""
    name = task.metadata.name
    try:
        result = _evaluated(encoder, task, cache)
    except LostProcessError:
        raise
    except InputError as error:
        scores["failed"][name] = str(error)
        logger.error("%s: failed: %s", name, error)
        return
    except Exception as error:
        # whatever mteb or a library raised: the other tasks do not depend on it, and nothing is hidden
        scores["failed"][name] = f"{type(error).__name__}: {error}"
        logger.exception("%s: failed", name)
        return
    protocol = _protocol(encoder, task, result)
    named = protocol_id(protocol)
    scores["protocol"]["tasks"][name] = {"id": named, **protocol}
    scores["tasks"][name] = {**_row(task, result), "part": None, "protocol_id": named}
    logger.info("%s: %s %.1f, protocol %s", name, task.metadata.main_score, 100 * result.get_score(), named)


def _evaluated(encoder: MtebEncoder, task: AbsTask, cache: mteb.ResultCache) -> TaskResult:
    """What mteb finds of a task, or found before.

    Raises:
        InputError: a task that the model cannot read, whose data cannot be fetched, or whose results are damaged.
    """
    name = task.metadata.name
    if (reason := reads(encoder, task)) is not None:
        raise InputError(name, expected="a task that the model reads", got=reason, remedy="leave it out")
    _check_known(encoder, name, cache)
    model: Any = encoder  # its __init__ is another than the one that mteb's protocol names
    with _fetching(task):
        found = mteb.evaluate(
            model, task, cache=cache, co2_tracker=False, show_progress_bar=False,
            encode_kwargs={"batch_size": 32, "show_progress_bar": False}, overwrite_strategy="only-missing",
        )  # fmt: skip
    if not found.task_results:
        said = "; ".join(error.exception for error in found.exceptions or ())
        raise _unreachable(task, said)
    (result,) = found.task_results
    if not math.isfinite(result.get_score()):
        raise InputError(
            name, expected=f"a number for {task.metadata.main_score}", got=result.get_score(),
            remedy="look at the model's vectors: they may all be the same",
        )  # fmt: skip
    return result


@contextmanager
def _fetching(task: AbsTask) -> Iterator[None]:
    """A block that may fetch the data of a task: say in words that they cannot be had."""
    try:
        yield
    except (DatasetNotFoundError, ConnectionError, TimeoutError, URLError) as error:
        raise _unreachable(task, f"{type(error).__name__}: {error}") from error


def _unreachable(task: AbsTask, got: str) -> InputError:
    return InputError(
        task.metadata.name, expected=f"the data set {task.metadata.dataset.get('path')} of the Hub", got=got,
        remedy="connect to the Hub, log in where the data set asks for it, and give the same command again",
    )  # fmt: skip


def _check_known(encoder: MtebEncoder, name: str, cache: mteb.ResultCache) -> None:
    """Refuse results of an earlier run that cannot be read, which mteb would stumble over."""
    path = cache.get_task_result_path(name, encoder.mteb_model_meta)  # type: ignore[arg-type]
    if path.exists():
        try:
            TaskResult.from_disk(path)
        except (ValueError, KeyError, AttributeError) as error:
            raise InputError(
                path,
                expected="results that mteb wrote",
                got=error,
                remedy="remove the file and evaluate again",
            ) from error


def _protocol(encoder: MtebEncoder, task: AbsTask, result: TaskResult) -> dict[str, Any]:
    """What the score of a task depends on besides the model; of results found before, what they depended on."""
    words = {
        "rows" if side is None else side.value: encoder.get_task_instruction(task.metadata, side)
        for side in (None, *PromptType)
    }
    return {
        "mteb": result.mteb_version,
        "task": task.metadata.name,
        "dataset": task.metadata.dataset.get("path"),
        "revision": result.dataset_revision,
        "metric": task.metadata.main_score,
        "splits": {split: sorted(row["hf_subset"] for row in rows) for split, rows in result.scores.items()},
        "instructions": {side: said for side, said in words.items() if said},
        "version": VERSION,
    }


def _row(task: AbsTask, result: TaskResult) -> dict[str, Any]:
    splits = {split: {row["hf_subset"]: row["main_score"] for row in rows} for split, rows in result.scores.items()}
    every = [row for rows in result.scores.values() for row in rows]
    # of several splits or languages, the file that mteb wrote has all
    alone = every[0] if len(every) == 1 else {}
    numbers = {k: v for k, v in alone.items() if k not in _NOT_METRICS and isinstance(v, int | float)}
    return {
        "metric": task.metadata.main_score,
        "score": float(result.get_score()),
        "type": task.metadata.type,
        "splits": splits,
        "metrics": {name: value for name, value in numbers.items() if math.isfinite(value)},
        "seconds": round(result.evaluation_time or 0.0, 3),
    }


def _sum_up(scores: dict[str, Any], tasks: Sequence[AbsTask]) -> None:
    """The means over each type of task, over all tasks, and over the types; each only where none is missing."""
    there = {name: row["score"] for name, row in scores["tasks"].items()}
    names: dict[str, list[str]] = {}
    for task in tasks:
        names.setdefault(task.metadata.type, []).append(task.metadata.name)
    means: dict[str, dict[str, Any]] = {kind: _mean([there.get(name) for name in own]) for kind, own in names.items()}
    means[TYPES] = _mean([row["mean"] for row in means.values()])
    means[OVERALL] = _mean([there.get(task.metadata.name) for task in tasks])
    scores["means"] = means
    scores["partial"] = len(there) != len(tasks)


def _mean(values: Sequence[float | None]) -> dict[str, Any]:
    known = [value for value in values if value is not None]
    whole = len(known) == len(values) > 0
    return {"mean": sum(known) / len(known) if whole else None, "tasks": len(known), "of": len(values)}
