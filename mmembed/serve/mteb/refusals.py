"""Why a task of ours is none of mteb's, in words: by its row, and by its data."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

from mteb.abstasks.task_metadata import TaskCategory

from mmembed.errors import InputError
from mmembed.evaluation.benchmark import Task
from mmembed.evaluation.metrics import metric_and_k
from mmembed.evaluation.retrieval_set import RetrievalSet
from mmembed.evaluation.vectors import asked
from mmembed.evaluation.written import written
from mmembed.items import Item, Page, Video
from mmembed.models.settings import Side

METRICS = {
    "hit": "hit_rate",
    "ndcg_linear": "ndcg",
    "ndcg_binary": "ndcg",
    "recall": "recall",
    "precision": "precision",
    "map": "map",
    "map_all": "map",
    "mrr": "mrr",
}
"""Our metrics that mteb has, and what it calls them."""
MAX_PAIRS = 20_000_000
"""Most candidates of all queries together that are listed where each query leaves out targets of its own."""
_LETTERS = {"video": "v", "image": "i", "text": "t"}


def why_not(task: Task, retrieval_set: RetrievalSet | None = None, *, loose: bool = False) -> str | None:
    """Why mteb's protocol cannot express a task.

    Args:
        task: the row.
        retrieval_set: its data; None judges the row alone.
        loose: let pass what seldom changes a score, see :func:`loosened`.

    Returns:
        The first reason, in words; None where there is none.
    """
    row = loosened(task) if loose else task
    return next(_of_row(row), None) or (None if retrieval_set is None else next(_of_data(row, retrieval_set), None))


def loosened(task: Task) -> Task:
    """A task without the two rules that mteb has not and that seldom change a score.

    Who wins ties, which mteb decides by the greater id; and how a raw prompt lays out instruction, media and text,
    which matters to no model with a chat template.
    """
    return replace(task, ties="index", query_layout=None, target_layout=None, wordings={})


def ways_of(task: Task, side: Side, items: Mapping[str, Item]) -> dict[str, tuple[Item, ...]]:
    """The items of a side under the row's prompts, several texts made one by its join, in each way that it writes them.

    Raises:
        InputError: texts that the join cannot write; task and item are named.
    """
    found = {}
    for name, item in asked(task, side, items).items():
        try:
            found[name] = (item,) if task.join is None else written(task, side, item)
        except InputError as error:
            raise error.within(f"{task.name}: {side} {name}") from None
    return found


def category_of(queries: Sequence[Item], targets: Sequence[Item]) -> str:
    """What mteb calls a task from items to items, e.g. ``it2i``."""
    return "2".join("".join(_LETTERS[name] for name in sorted(kinds_of(side))) for side in (queries, targets))


def kinds_of(items: Sequence[Item]) -> set[str]:
    """What some items hold, of ``text``, ``image`` and ``video``; a page counts as the picture that is drawn of it."""
    found = {"video" if isinstance(medium, Video) else "image" for item in items for medium in item.media}
    return found | ({"text"} if any(item.text for item in items) else set())


def _of_row(task: Task) -> Iterator[str]:
    kind, _ = metric_and_k(task.metric)
    if not task.judged:
        yield "its answers are not public"
    if kind not in METRICS:
        yield f"mteb has no metric {kind}; it has {', '.join(METRICS)}"
    if task.macro is not None:
        yield f"its score is a mean over groups ({task.macro}), and mteb's is one over queries"
    if task.ties == "pessimistic":
        yield "its ties go to the wrong target, and mteb's to the greater id"
    if task.ndcg_fault_seed is not None:
        yield "mteb does not permute grades as published"
    if task.query_regions != "region":
        yield f"its regions are shown as '{task.query_regions}', and mteb has none"
    for name in ("query_layout", "target_layout", "query_text", "target_text"):
        if getattr(task, name) is not None:
            yield f"its prompts are spelt out ({name}), and a model asked by mteb writes its own"


def _of_data(task: Task, data: RetrievalSet) -> Iterator[str]:
    if task.candidates == "local" and data.candidates is None:
        yield "its row ranks candidates of each query, and its data have none"
    if task.reference == "removed":
        if not data.references:
            yield "its row removes what a query shows, and its data do not name it"
        pairs = len(data.queries) * len(data.corpus)
        if task.candidates == "shared" and pairs > MAX_PAIRS:
            yield f"each query leaves out what it shows, which mteb takes as {pairs} listed candidates: too many"
    kind, k = metric_and_k(task.metric)
    most = max(sum(grade > 0 for grade in own.values()) for own in data.relevance.values())
    if kind == "map" and most > k:
        yield f"a query has {most} relevant targets, of which mteb's map counts all and ours at most {k}"
    grades = {grade for own in data.relevance.values() for grade in own.values()}
    if kind == "ndcg_linear" and any(grade != int(grade) for grade in grades):
        yield "its grades are not whole numbers"
    sides: tuple[tuple[Side, Mapping[str, Item]], ...] = (("query", data.queries), ("target", data.corpus))
    for side, items in sides:
        ways = ways_of(task, side, items)
        if (most := max(map(len, ways.values()))) > 1:
            yield f"a query is written in {most} ways whose vectors are averaged (join {task.join}), in mteb in one"
        yield from _of_items(side, {name: own[0] for name, own in ways.items()})
    category = category_of(list(data.queries.values()), list(data.corpus.values()))
    if category not in get_args(TaskCategory):
        yield f"mteb has no tasks from and to these kinds of rows ({category})"


def _of_items(side: Side, items: Mapping[str, Item]) -> Iterator[str]:
    words = {item.instruction for item in items.values()}
    if len(words) > 1:
        yield f"its {side} items have {len(words)} different instructions, and a task of mteb has one for each side"
    for item_id, item in items.items():
        if (reason := _of_item(side, item)) is not None:
            yield f"{side} {item_id}: {reason}"


def _of_item(side: Side, item: Item) -> str | None:
    texts = [part for part in item.content if isinstance(part, str)]
    if any(getattr(medium, "regions", ()) for medium in item.media):
        return "it has regions, and mteb has none"
    if item.layout is not None or (item.verbatim and len(item.content) > 1):
        return "its parts have an order or layout of their own, and a row of mteb has none"
    if len(texts) > 1:
        return "it has several texts, and a row of mteb has one"
    if side == "target" and any(text != text.strip() for text in texts):
        return "its text begins or ends with a space, which mteb takes off a document"
    clips = [medium for medium in item.media if isinstance(medium, Video)]
    if len(clips) > 1:
        return "it has several clips, and a row of mteb has one"
    if clips and clips != [Video(clips[0].source)]:
        return "it says which frames or seconds of its clip are taken, and a row of mteb cannot"
    if clips and (isinstance(clips[0].source, tuple) or _is_folder(clips[0].source)):
        return "its clip is frames, and mteb takes files of clips"
    pages = [isinstance(medium, Page) for medium in item.media if not isinstance(medium, Video)]
    return "it has pictures behind pages" if pages != sorted(pages) else None


def _is_folder(source: object) -> bool:
    return isinstance(source, str | Path) and Path(source).is_dir()
