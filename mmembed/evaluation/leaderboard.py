"""``leaderboard.json``: the scores in the published schema of MMEB-V2's leaderboard (arXiv:2507.04590).

``{"metadata": {...}, "metrics": {modality: {dataset: {"hit@1": 0.8, ..., "num_pred": 1000, "num_data": 1000}}}}``; a
dataset without scores is the string ``FILE_N/A``, as the published script writes it.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from mmembed.evaluation.benchmark import Benchmark, Task
from mmembed.evaluation.scores import read_scores, what_is_less
from mmembed.files import write_json
from mmembed.settings import load_yaml, read_settings

MISSING = "FILE_N/A"
METRICS = ("hit", "ndcg_linear", "ndcg_exponential", "precision", "recall", "f1", "map", "mrr")
"""The published metrics in their order, each at 1, 5 and 10."""
KS = (1, 5, 10)


@dataclass(frozen=True)
class Metadata:
    """What the leaderboard shows of a model; null is not known."""

    model_name: str | None = None
    """Null is what the evaluation calls the model."""
    model_backbone: str | None = None
    """What it was trained from, e.g. ``qwen2_vl``."""
    model_size: str | None = None
    """In words, e.g. ``2B parameters``."""
    embedding_dimension: int | None = None
    """Null is that of the vectors."""
    max_length_tokens: int | None = None
    """Most tokens of an item."""
    model_release_date: str | None = None
    """When it was released, e.g. ``2025-06-01``."""
    data_source: str = "Self-Reported"
    """Who says so."""
    url: str | None = None
    """Paper, code or weights."""


def read_metadata(path: Path | str) -> Metadata:
    """Read the fields of :class:`Metadata` from a YAML file.

    Raises:
        InputError: broken YAML, an unknown field (the nearest one is named) or an unusable value: file and field.
    """
    return read_settings(Metadata, load_yaml(path), where=path)


def leaderboard(
    scores: Mapping[str, Any], benchmark: Benchmark, metadata: Metadata | None = None, *, now: datetime | None = None
) -> dict[str, Any]:
    """The scores of an evaluation in the published schema.

    Args:
        scores: the content of ``scores.json``.
        benchmark: the rows; those without a modality are left out.
        metadata: of the model; None is what the evaluation knows.
        now: when the report was made; None is now.
    """
    shown = asdict(metadata or Metadata())
    widths = {row.get("dimension") for row in scores["tasks"].values()}
    known = {
        "model_name": scores["protocol"]["model"],
        "embedding_dimension": next(iter(widths)) if len(widths) == 1 else None,
    }
    shown |= {name: value for name, value in known.items() if shown[name] is None}
    shown["report_generated_date"] = (now or datetime.now()).isoformat()
    metrics: dict[str, dict[str, Any]] = {}
    for name, task in benchmark.tasks.items():
        if task.modality:
            row = scores["tasks"].get(name)
            metrics.setdefault(task.modality, {})[task.published_as or name] = _metrics(row, task)
    return {"metadata": shown, "metrics": metrics}


def has_leaderboard(benchmark: Benchmark) -> bool:
    """Whether the published schema has a place for some row."""
    return any(task.modality for task in benchmark.tasks.values())


def write_leaderboard(output: Path, benchmark: Benchmark, metadata: Metadata | None = None) -> Path | None:
    """Write ``leaderboard.json`` beside the ``scores.json`` of an evaluation, and return its path.

    None where there is nothing to write: no row has a modality, or what was scored is less than the data of a task. A
    file of an earlier evaluation is then removed.

    Raises:
        InputError: scores that are not there, or of another benchmark.
    """
    scores, path = read_scores(output, benchmark), output / "leaderboard.json"
    if what_is_less(scores) or not has_leaderboard(benchmark):
        path.unlink(missing_ok=True)
        return None
    write_json(path, leaderboard(scores, benchmark, metadata))
    return path


def _metrics(row: Mapping[str, Any] | None, task: Task) -> dict[str, float | int] | str:
    if row is None:
        return MISSING
    names = [f"{metric}@{k}" for metric in METRICS for k in KS if k in task.ks]
    return {name: row["metrics"][name] for name in names} | {"num_pred": row["queries"], "num_data": row["queries"]}
