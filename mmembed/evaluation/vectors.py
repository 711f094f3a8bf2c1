"""The embeddings of a task: queries and targets as they are, and as each blinding leaves them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain

import torch
import torch.nn.functional as F
from torch import Tensor

from mmembed.errors import InputError
from mmembed.evaluation.benchmark import Task
from mmembed.evaluation.blind import BLINDS, Around
from mmembed.evaluation.crew import Crew
from mmembed.evaluation.encode import encode_set
from mmembed.evaluation.region_forms import in_form
from mmembed.evaluation.retrieval_set import RetrievalSet
from mmembed.evaluation.written import instruction_of, written
from mmembed.items import JOINS, Item
from mmembed.media.settings import MediaSettings
from mmembed.models.settings import Side

OF_TARGETS = "targets."
"""Stands before the name of a blinding of targets among the blinded scores."""
_UNIT = 1e-3
"""Vectors whose lengths are all this near to 1 were scaled."""


@dataclass(frozen=True)
class TaskVectors:
    """Embeddings in the order of the set.

    Args:
        queries: ``[Q, D]``.
        targets: ``[N, D]``.
        blinded: queries and targets under each blinding, by its name.
    """

    queries: Tensor
    targets: Tensor
    blinded: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)


def embed_task(task: Task, retrieval_set: RetrievalSet, crew: Crew, media: MediaSettings) -> TaskVectors:
    """Embed the queries and targets of a task; what a blinding leaves as it was is embedded once.

    Raises:
        InputError: a blinding that changes nothing, or an item that cannot be embedded.
    """
    targets, *blind_targets = _embed(task, "target", retrieval_set.corpus, task.blind_targets, crew, media)
    queries, *blind_queries = _embed(task, "query", retrieval_set.queries, task.blind, crew, media)
    blinded = {name: (vectors, targets) for name, vectors in zip(task.blind, blind_queries, strict=True)}
    for name, vectors in zip(task.blind_targets, blind_targets, strict=True):
        blinded[f"{OF_TARGETS}{name}"] = (queries, vectors)
    return TaskVectors(queries, targets, blinded)


def embed_targets(task: Task, retrieval_set: RetrievalSet, crew: Crew, media: MediaSettings) -> Tensor:
    """Embed the targets of a task alone: ``[N, D]``, without any blinding."""
    (targets,) = _embed(task, "target", retrieval_set.corpus, (), crew, media)
    return targets


def asked(task: Task, side: Side, items: Mapping[str, Item]) -> dict[str, Item]:
    """The items of a side under the row's prompts.

    An instruction of None leaves their own, an empty one takes it away. An item's own layout goes before the row's: it
    says that the published prompt does not fit this item; without an instruction, it has no place for the row's.

    Raises:
        InputError: a layout that would lose something that an item has; task and item are named.
    """
    layout = getattr(task, f"{side}_layout")
    found = {}
    for name, item in items.items():
        words = instruction_of(task, side, item)
        try:
            found[name] = replace(item, instruction=words, layout=item.layout or layout)
        except InputError as error:
            raise error.within(f"{task.name}: {side} {name}") from None
    return found


def shown(task: Task, side: Side, item: Item, media: MediaSettings) -> Item:
    """An item with its regions in the form that the row asks for; those of targets stay as they are.

    Raises:
        InputError: regions to tell in words in a layout that has no place for a text.
    """
    return in_form(item, task.query_regions, task.region_words, media) if side == "query" else item


def embed_items(
    task: Task,
    side: Side,
    named: Iterable[tuple[str, Item]],
    crew: Crew,
    media: MediaSettings,
    *,
    label: str = "encode",
    total: int | None = None,
) -> Tensor:
    """Embed items of a row as it writes them: ``[N, D]``, the vectors of one that is written in several ways averaged.

    Args:
        task: the row.
        side: which side they are on.
        named: what errors call an item, and the item under the row's prompts; read as they come.
        crew: who embeds.
        media: how media are decoded whose regions are shown in another form.
        label: what the bar calls them.
        total: how many ways there are to write them, about.

    Raises:
        InputError: an item that cannot be written or embedded.
    """
    ways: list[int] = []

    def forms() -> Iterator[tuple[str, Item]]:
        for name, item in named:
            found = _forms(task, side, name, item)
            ways.append(len(found))
            for form in found:
                try:
                    yield name, shown(task, side, form, media)
                except InputError as error:
                    raise error.within(f"{task.name}: {name}") from None

    vectors = encode_set(forms(), crew, side=side, label=label, total=total)
    vectors = _averaged(task, vectors, torch.tensor(ways))
    return F.normalize(vectors, dim=-1) if crew.scale else vectors


def _forms(task: Task, side: Side, name: str, item: Item) -> tuple[Item, ...]:
    try:
        return written(task, side, item)
    except InputError as error:
        raise error.within(f"{task.name}: {name}") from None


def _averaged(task: Task, vectors: Tensor, ways: Tensor) -> Tensor:
    """``[N, D]``: of each item, the mean of the vectors of its ways, scaled; one way alone keeps its vector."""
    if bool((ways == 1).all()):
        return vectors
    scaled = JOINS[str(task.join)].scaled
    lengths = torch.linalg.vector_norm(vectors, dim=-1)
    if not scaled and bool(((lengths - 1).abs() < _UNIT).all()):
        raise InputError(
            f"{task.name}.join", expected=f"vectors as they are before scaling, which {task.join} averages",
            got="vectors of unit length", remedy="open the model with normalize: false, and give its Crew scale=True",
        )  # fmt: skip
    each = F.normalize(vectors, dim=-1) if scaled else vectors
    owners = torch.repeat_interleave(torch.arange(len(ways)), ways)
    sums = torch.zeros(len(ways), vectors.shape[1]).index_add_(0, owners, each)
    means = F.normalize(sums / ways[:, None], dim=-1)
    alone = (ways == 1)[:, None]
    return torch.where(alone, vectors[ways.cumsum(0) - 1], means)


def _embed(
    task: Task,
    side: Side,
    items: Mapping[str, Item],
    blinds: Sequence[str],
    crew: Crew,
    media: MediaSettings,
) -> list[Tensor]:
    """Vectors of one side: as it is, then under each blinding."""
    worded = asked(task, side, items)

    def named() -> Iterator[tuple[str, Item]]:
        return ((f"{side} {item_id}", item) for item_id, item in worded.items())

    blinded = (_blinded(name, worded, task, side, media) for name in blinds)
    label = f"{task.name}: {'queries' if side == 'query' else 'targets'}"
    total = (1 + len(blinds)) * sum(len(_forms(task, side, name, item)) for name, item in named())
    vectors = embed_items(task, side, chain(named(), *blinded), crew, media, label=label, total=total)
    return list(torch.split(vectors, len(worded)))


def _blinded(
    name: str, items: Mapping[str, Item], task: Task, side: Side, media: MediaSettings
) -> Iterator[tuple[str, Item]]:
    """The blinded items, made as they are needed: their pictures are in memory."""
    around, changed = Around(media, items, task.region_words), False
    for item_id, item in items.items():
        called = f"{side} {item_id} under {name}"
        try:
            blinded = BLINDS[name](item, item_id, around)
        except InputError as error:
            raise error.within(f"{task.name}: {called}") from None
        changed = changed or blinded.fingerprint() != item.fingerprint()
        yield called, blinded
    if not changed:
        where = f"{task.name}.{'blind' if side == 'query' else 'blind_targets'}"
        raise InputError(
            where, expected="a blinding that changes something", got=f"{name}, which changes nothing",
            remedy="blind what the items have",
        )  # fmt: skip
