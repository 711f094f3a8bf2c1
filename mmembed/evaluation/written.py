"""Items as a row writes them: the texts of a query joined, and the words that a model is asked with verbatim."""

from dataclasses import replace

from mmembed.errors import InputError
from mmembed.evaluation.benchmark import Task
from mmembed.items import Item, joined
from mmembed.models.settings import Side


def written(task: Task, side: Side, item: Item) -> tuple[Item, ...]:
    """The ways in which an item is embedded, mostly one; the vectors of several are averaged.

    A query's texts are written by the row's ``join``, and go into its ``query_text``; a target of media alone is
    followed by its ``target_text``. What a blinding left without words keeps the row's.

    Raises:
        InputError: several texts and no join, or texts that the join cannot write.
    """
    if side == "target":
        return (_verbatim(item, task.target_text),) if _is_silent(item) and task.target_text is not None else (item,)
    texts = [part for part in item.content if isinstance(part, str)]
    if any(text.strip() for text in texts) and task.join is not None:
        ways: tuple[str, ...] = joined(task.join, texts)
    elif len(texts) > 1 and not (item.verbatim and task.query_text is None):
        raise InputError(
            "join", expected="how the texts of the query become one", got=f"none, for {len(texts)} texts",
            remedy="name a join in the row, e.g. join: searle",
        )  # fmt: skip
    elif task.query_text is None:
        return (item,)
    else:
        ways = tuple(text.strip() for text in texts) or ("",)
    if task.query_text is not None:
        return tuple(_verbatim(item, task.query_text.replace("{text}", way)) for way in ways)
    return tuple(_with_text(item, way) for way in ways)


def instruction_of(task: Task, side: Side, item: Item) -> str | None:
    """The instruction of an item under the row's prompts; see :func:`mmembed.evaluation.vectors.asked`."""
    given: str | None = getattr(task, f"{side}_instruction")
    if given is None or (item.layout is not None and item.instruction is None):
        return item.instruction
    return given or None


def _verbatim(item: Item, words: str) -> Item:
    """The media and these words, in this order and spelt so."""
    return replace(item, content=(*item.media, words), verbatim=True, layout=None)


def _with_text(item: Item, text: str) -> Item:
    """The item with one text, where its first one was; what was joined is no longer spelt as the data do."""
    first = next(i for i, part in enumerate(item.content) if isinstance(part, str))
    kept = ((i, part) for i, part in enumerate(item.content) if i == first or not isinstance(part, str))
    return replace(item, content=tuple(text if i == first else part for i, part in kept), verbatim=False)


def _is_silent(item: Item) -> bool:
    return bool(item.media) and not item.text.strip()
