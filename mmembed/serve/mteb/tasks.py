"""Our tasks as tasks of mteb: the same queries, targets, candidates, instructions and metric, for any model of mteb."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from datasets import Dataset, Features, List, Value
from datasets import Image as ImageColumn
from datasets import Video as VideoColumn
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.task_metadata import TaskMetadata

from mmembed.errors import InputError
from mmembed.evaluation.benchmark import Benchmark, Task
from mmembed.evaluation.metrics import metric_and_k
from mmembed.evaluation.retrieval_set import RetrievalSet, read_retrieval_set
from mmembed.items import Item, Media, Page, Video
from mmembed.media.pages import render_page
from mmembed.media.settings import MediaSettings
from mmembed.models.settings import Side
from mmembed.serve.mteb.refusals import METRICS, category_of, kinds_of, loosened, ways_of, why_not

logger = logging.getLogger(__name__)

SUBSET, SPLIT = "default", "test"
KINDS = ("text", "image", "video")


class OurTask(AbsTaskRetrieval):
    """A row and its data, held here: mteb loads nothing from the Hub.

    Args:
        task: the row.
        data: its data.
        metadata: what mteb says of it.
    """

    def __init__(self, task: Task, data: RetrievalSet, metadata: TaskMetadata) -> None:
        # mteb reads both off the class; each of ours has its own
        self.metadata = metadata
        self.k_values = tuple(sorted({1, *task.ks, metric_and_k(task.metric)[1]}))
        self.row, self.data = task, data
        super().__init__()

    def load_data(self, num_proc: int | None = None, **kwargs: Any) -> None:
        """Make mteb's tables of the data."""
        if self.data_loaded:
            return
        split = {
            "queries": _table(_sent(self.row, "query", self.data.queries)),
            "corpus": _table(_sent(self.row, "target", self.data.corpus)),
            "relevant_docs": _relevant(self.row, self.data),
            "top_ranked": _candidates(self.row, self.data),
        }
        self.dataset = {SUBSET: {SPLIT: cast(Any, split)}}
        self.data_loaded = True

    def unload_data(self) -> None:
        """Forget mteb's tables; the data stay, and so does the metadata, which mteb would look for in the class."""
        if self.data_loaded:
            self.dataset = cast(Any, None)
            self.data_loaded = False


def mteb_tasks(
    benchmark: Benchmark, data_root: Path | str, tasks: Sequence[str] | None = None, *, loose: bool = False
) -> list[AbsTaskRetrieval]:
    """The tasks of a benchmark that mteb can express; the others are logged with the reason.

    Args:
        benchmark: the rows.
        data_root: folder that their ``data`` are relative to.
        tasks: names of those wanted; None is all that can be.
        loose: leave ties and the layout of raw prompts to mteb and the model, see :func:`loosened`.

    Raises:
        InputError: one that was named cannot be expressed, or data that cannot be read.
    """
    chosen = benchmark if tasks is None else benchmark.only(tasks)
    found: list[AbsTaskRetrieval] = []
    for name, task in chosen.tasks.items():
        reason = why_not(task, loose=loose)
        data = None if reason else read_retrieval_set(Path(data_root) / task.data).ranked(task.candidates)
        reason = reason or why_not(task, data, loose=loose)
        if reason is None and data is not None:
            found.append(mteb_task(task, data, benchmark.name, loose=loose))
        elif tasks is not None:
            raise _refusal(name, str(reason))
        else:
            logger.info("%s is no task of mteb: %s", name, reason)
    return found


def mteb_task(task: Task, data: RetrievalSet, benchmark: str = "mmembed", *, loose: bool = False) -> AbsTaskRetrieval:
    """One row as a task of mteb.

    Args:
        task: the row.
        data: its data.
        benchmark: stands before its name.
        loose: leave ties and the layout of raw prompts to mteb and the model, see :func:`loosened`.

    Raises:
        InputError: mteb cannot express it; says why.
    """
    if (reason := why_not(task, data, loose=loose)) is not None:
        raise _refusal(task.name, reason)
    row = loosened(task) if loose else task
    return OurTask(row, data, _metadata(row, data, benchmark))


def _refusal(name: str, reason: str) -> InputError:
    return InputError(
        name, expected="a task that mteb can express", got=f"one that it cannot: {reason}",
        remedy="evaluate it as a task of ours",
    )  # fmt: skip


def _metadata(task: Task, data: RetrievalSet, benchmark: str) -> TaskMetadata:
    kind, k = metric_and_k(task.metric)
    queries, targets = _sent(task, "query", data.queries), _sent(task, "target", data.corpus)
    words = {"query": _words(queries), "document": _words(targets)}
    values = list(queries.values()), list(targets.values())
    kinds = kinds_of(values[0]) | kinds_of(values[1])
    category: Any = category_of(*values)
    fields: dict[str, Any] = {
        "name": f"{benchmark}.{task.name}",
        "description": f"{task.name} of {benchmark}, as mmembed evaluates it, prompts {task.prompts}",
        "type": "Retrieval" if kinds == {"text"} else "Any2AnyRetrieval",
        "category": category,
        "modalities": [name for name in KINDS if name in kinds],
        "dataset": {"path": f"mmembed/{task.data}", "revision": data.fingerprint()},
        "eval_splits": [SPLIT],
        "eval_langs": ["eng-Latn"],
        "main_score": f"{METRICS[kind]}_at_{k}",
        # without any words, a dict all the same: for None, mteb takes those of the type of task
        "prompt": {side: said for side, said in words.items() if said},
    }
    return TaskMetadata(**fields)


def _sent(task: Task, side: Side, items: Mapping[str, Item]) -> dict[str, Item]:
    """The items of a side as mteb gets them."""
    return {name: ways[0] for name, ways in ways_of(task, side, items).items()}


def _words(items: Mapping[str, Item]) -> str:
    """The instruction of a side, which all its items share."""
    return next(iter(items.values())).instruction or ""


def _table(items: Mapping[str, Item]) -> Dataset:
    """The items of a side as mteb's columns; an item without a medium has None there, one without words no words."""
    kinds = kinds_of(list(items.values()))
    columns: dict[str, list[Any]] = {"id": list(items)}
    features: dict[str, Any] = {"id": Value("string")}
    if "text" in kinds:
        columns["text"], features["text"] = [item.text for item in items.values()], Value("string")
    if "image" in kinds:
        rows = [[_stored(m) for m in item.media if not isinstance(m, Video)] for item in items.values()]
        several = any(len(row) > 1 for row in rows)
        columns["image"] = [(row if several else row[0]) if row else None for row in rows]
        features["image"] = List(ImageColumn()) if several else ImageColumn()
    if "video" in kinds:
        clips = [[_stored(m) for m in item.media if isinstance(m, Video)] for item in items.values()]
        columns["video"], features["video"] = [row[0] if row else None for row in clips], VideoColumn()
    return Dataset.from_dict(columns, features=Features(features))


def _stored(medium: Media) -> Any:
    """A medium as the package datasets stores it: a path, bytes, or an open picture, which it writes without loss."""
    if isinstance(medium, Page):
        return render_page(medium, MediaSettings())
    source = medium.source
    if isinstance(source, bytes):
        return {"bytes": source, "path": None}
    return str(source) if isinstance(source, str | Path) else source


def _relevant(task: Task, data: RetrievalSet) -> dict[str, dict[str, int]]:
    """Grades above 0 of each query, whole numbers; all 1 where the metric does not look at them."""
    graded = metric_and_k(task.metric)[0] == "ndcg_linear"
    return {
        query: {target: int(grade) if graded else 1 for target, grade in own.items() if grade > 0}
        for query, own in data.relevance.items()
    }


def _candidates(task: Task, data: RetrievalSet) -> dict[str, list[str]] | None:
    """What each query ranks, where that is not the whole corpus."""
    if task.candidates == "shared" and task.reference == "kept":
        return None
    every = list(data.corpus)
    shown = data.references if task.reference == "removed" else {}
    own = data.candidates if task.candidates == "local" and data.candidates is not None else {}
    out = {query: set(shown.get(query, ())) for query in data.queries}
    return {query: [target for target in own.get(query, every) if target not in out[query]] for query in data.queries}
