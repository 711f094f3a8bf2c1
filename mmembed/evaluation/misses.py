"""Why embeddings are not in the cache, in words: what differs from those that are."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import rich.box
from rich.markup import escape
from rich.table import Table

from mmembed.evaluation.benchmark import Task
from mmembed.evaluation.crew import key_of
from mmembed.evaluation.retrieval_set import RetrievalSet
from mmembed.evaluation.vectors import asked, shown
from mmembed.evaluation.written import written
from mmembed.index.embedding_cache import Key, Space, differences
from mmembed.items import Item
from mmembed.media.settings import MediaSettings
from mmembed.models.settings import Side

CACHED = "cached"
NEW = "never embedded, removed since, or its content has changed"
OTHER_WORDS = "the same content was embedded with another instruction, layout or side"


def explain_task(
    task: Task, retrieval_set: RetrievalSet, space: Space, others: Sequence[Space], media: MediaSettings | None = None
) -> dict[Side, Counter[str]]:
    """For each side of a task, how many distinct items are cached, and how many are not for which reason.

    Args:
        task: the row.
        retrieval_set: its data.
        space: of the model at hand.
        others: every other space of the cache.
        media: how pictures are decoded that are cut to their regions; None is the default of :class:`MediaSettings`.
    """
    settings = media or MediaSettings()
    sides: dict[Side, dict[str, Item]] = {
        "query": asked(task, "query", retrieval_set.queries),
        "target": asked(task, "target", retrieval_set.corpus),
    }
    return {
        side: Counter(_reasons({key_of(shown(task, side, form, settings), side) for form in forms}, space, others))
        for side, forms in (
            (side, [form for item in items.values() for form in written(task, side, item)])
            for side, items in sides.items()
        )
    }


def misses_table(found: Mapping[str, Mapping[Side, Counter[str]]]) -> Table:
    """What :func:`explain_task` found of several tasks."""
    table = Table(box=rich.box.SIMPLE_HEAD, caption="blinded items are left out", caption_justify="left")
    for name in ("task", "side", "items", "in the cache, or why not"):
        table.add_column(name, overflow="fold", justify="right" if name == "items" else "left")
    for task, sides in found.items():
        for side, reasons in sides.items():
            for reason, number in reasons.most_common():
                table.add_row(escape(task), side, str(number), escape(reason))
    return table


def _reasons(keys: set[Key], space: Space, others: Sequence[Space]) -> Iterator[str]:
    nearest = sorted(others, key=lambda other: len(differences(space.parts, other.parts)))
    for key in keys:
        if key in space:
            yield CACHED
            continue
        holder = next((other for other in nearest if key in other), None)
        if holder is not None:
            yield f"embedded by another model: {'; '.join(differences(space.parts, holder.parts))}"
        elif space.knows_content(key) or any(other.knows_content(key) for other in others):
            yield OTHER_WORDS
        else:
            yield NEW
