"""Evaluate an encoder on a benchmark: embeddings, rankings and scores as files, each whole when it is there."""

import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from mmembed import __version__
from mmembed.errors import InputError
from mmembed.evaluation.benchmark import Benchmark, Task
from mmembed.evaluation.blind import BLINDS
from mmembed.evaluation.encode import Encoder, encode_set
from mmembed.evaluation.metrics import chance, judge, mean_metrics, metric_and_k
from mmembed.evaluation.rankings import Ranking, rank, write_rankings
from mmembed.evaluation.retrieval_set import RetrievalSet, read_retrieval_set
from mmembed.files import whole_file, write_json
from mmembed.items import Item
from mmembed.media.settings import MediaSettings

logger = logging.getLogger(__name__)

REPORT_DEPTH = 10
"""Targets kept in a ranking even where no metric looks that far."""


@dataclass(frozen=True)
class TaskResult:
    """What evaluating one task gave.

    Args:
        task: the row.
        metrics: every metric at every cut-off, means over queries, fractions.
        chance: the score of a random ranking.
        blind: the score of the blinded queries; None where the row asks for none.
        rankings: one for each query.
        queries: ``[Q, D]`` embeddings in the order of the set.
        targets: ``[N, D]`` embeddings in the order of the set.
        seconds: wall time of embedding and ranking, blinded queries included.
    """

    task: Task
    metrics: dict[str, float]
    chance: float
    blind: float | None
    rankings: list[Ranking]
    queries: Tensor
    targets: Tensor
    seconds: float

    @property
    def score(self) -> float:
        """The value of the task's metric."""
        return self.metrics[self.task.metric]

    def row(self) -> dict[str, Any]:
        """The task's entry in ``scores.json``."""
        return {
            "metric": self.task.metric,
            "score": self.score,
            "chance": self.chance,
            "blind": self.blind,
            "metrics": self.metrics,
            "queries": len(self.queries),
            "corpus": len(self.targets),
            "seconds": round(self.seconds, 3),
        }


def evaluate_task(
    task: Task, retrieval_set: RetrievalSet, encode: Encoder, *, media: MediaSettings | None = None
) -> TaskResult:
    """Embed a set, rank it, and score the rankings beside chance and beside blinded queries.

    Args:
        task: the row.
        retrieval_set: its data.
        encode: the model; it gets each distinct item once.
        media: how media of blinded queries are decoded; None is the default of :class:`MediaSettings`.

    Raises:
        InputError: the row asks for candidates that the set does not bring, or blinding changes no query.
    """
    if task.candidates == "local" and retrieval_set.candidates is None:
        raise InputError(
            f"{task.name}.candidates",
            expected="'shared' for a set without candidates",
            got="'local'",
            remedy="add candidates.jsonl to the data, or change the row",
        )
    started = time.perf_counter()
    asked = [_instructed(item, task.query_instruction) for item in retrieval_set.queries.values()]
    corpus = (_instructed(item, task.target_instruction) for item in retrieval_set.corpus.values())
    targets = encode_set(corpus, partial(encode, side="target"))
    # one call for queries seen and blinded: those that blinding leaves alone are embedded once
    blinded = _blinded(task, retrieval_set, asked, media or MediaSettings())
    vectors = encode_set(chain(asked, blinded), partial(encode, side="query"))
    queries, blind_queries = vectors.tensor_split([len(asked)])
    rankings = rank(task, retrieval_set, queries, targets, _depth(task))
    blind = None
    if task.blind is not None:
        blind = _metrics(task, rank(task, retrieval_set, blind_queries, targets, _depth(task)))[task.metric]
    return TaskResult(
        task=task,
        metrics=_metrics(task, rankings),
        chance=_chance(task, retrieval_set, rankings),
        blind=blind,
        rankings=rankings,
        queries=queries,
        targets=targets,
        seconds=time.perf_counter() - started,
    )


def evaluate_benchmark(
    benchmark: Benchmark,
    encode: Encoder,
    *,
    data_root: Path,
    output: Path,
    model: str,
    tasks: Sequence[str] | None = None,
    media: MediaSettings | None = None,
) -> dict[str, Any]:
    """Evaluate the tasks of a benchmark one after the other.

    Writes ``scores.json`` (after each task, ``partial`` until all of the benchmark are there),
    ``rankings/TASK.jsonl`` and ``embeddings/TASK.safetensors`` under ``output``.

    Args:
        benchmark: the rows.
        encode: the model.
        data_root: folder that the rows' ``data`` are relative to.
        output: folder to write to.
        model: what the scores call the model.
        tasks: names of the tasks to evaluate; None is all.
        media: see :func:`evaluate_task`.

    Returns:
        The content of ``scores.json``.

    Raises:
        InputError: a task that is not in the benchmark, or data that are not usable, the task named first.
    """
    chosen = benchmark if tasks is None else benchmark.only(tasks)
    protocol = {"benchmark": benchmark.name, "model": model, "mmembed": __version__, "tasks": {}}
    scores: dict[str, Any] = {"protocol": protocol, "tasks": {}, "partial": True}
    for name, task in chosen.tasks.items():
        try:
            retrieval_set = read_retrieval_set(data_root / task.data)
            result = evaluate_task(task, retrieval_set, encode, media=media)
        except InputError as error:
            raise error.within(f"task {name}") from error
        write_rankings(output / "rankings" / f"{name}.jsonl", result.rankings)
        _write_embeddings(output / "embeddings" / f"{name}.safetensors", result, retrieval_set)
        scores["protocol"]["tasks"][name] = asdict(task) | {"revision": retrieval_set.fingerprint()}
        scores["tasks"][name] = result.row()
        scores["partial"] = scores["tasks"].keys() != benchmark.tasks.keys()
        write_json(output / "scores.json", scores)
        logger.info("%s: %s %.1f in %.1f s", name, task.metric, 100 * result.score, result.seconds)
    return scores


def _blinded(task: Task, retrieval_set: RetrievalSet, queries: list[Item], media: MediaSettings) -> Iterator[Item]:
    """The blinded queries, made as they are needed: their pictures are in memory."""
    if task.blind is None:
        return
    changed = False
    for query_id, query in zip(retrieval_set.queries, queries, strict=True):
        blinded = BLINDS[task.blind](query, query_id, media)
        changed = changed or blinded.fingerprint() != query.fingerprint()
        yield blinded
    if not changed:
        raise InputError(
            f"{task.name}.blind",
            expected="a blinding that changes some query",
            got=f"{task.blind}, which changes none",
            remedy="blind what the queries have",
        )


def _instructed(item: Item, instruction: str | None) -> Item:
    return item if instruction is None else replace(item, instruction=instruction or None)


def _depth(task: Task) -> int:
    return max(REPORT_DEPTH, *_cutoffs(task))


def _cutoffs(task: Task) -> list[int]:
    return sorted({*task.ks, metric_and_k(task.metric)[1]})


def _metrics(task: Task, rankings: Sequence[Ranking]) -> dict[str, float]:
    targets = [ranking.targets for ranking in rankings]
    judged = judge(targets, [ranking.relevant for ranking in rankings], _depth(task))
    return mean_metrics(judged, _cutoffs(task))


def _chance(task: Task, retrieval_set: RetrievalSet, rankings: Sequence[Ranking]) -> float:
    grades = [list(ranking.relevant.values()) for ranking in rankings]
    own: Mapping[str, list[str]] = (retrieval_set.candidates or {}) if task.candidates == "local" else {}
    num_shared = len(retrieval_set.corpus)
    sizes = [len(own[ranking.query_id]) if own else num_shared for ranking in rankings]
    return chance(task.metric, grades, sizes)


def _write_embeddings(path: Path, result: TaskResult, retrieval_set: RetrievalSet) -> None:
    names = {
        "query_ids": json.dumps(list(retrieval_set.queries)),
        "target_ids": json.dumps(list(retrieval_set.corpus)),
    }
    vectors = {"queries": result.queries.contiguous(), "targets": result.targets.contiguous()}
    with whole_file(path) as part:
        save_file(vectors, part, metadata=names)
