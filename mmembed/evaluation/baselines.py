"""Baselines of composed queries: the picture alone, the words alone, and the sum of the two unit vectors.

A composed query that scores no better than one of these gained nothing by looking at both (arXiv:2303.15247).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from mmembed.evaluation.benchmark import Task
from mmembed.evaluation.crew import Crew
from mmembed.evaluation.metrics import mean_metrics
from mmembed.evaluation.rankings import rank
from mmembed.evaluation.retrieval_set import RetrievalSet
from mmembed.evaluation.scoring import Scoring
from mmembed.evaluation.vectors import asked, embed_items
from mmembed.items import Item
from mmembed.media.settings import MediaSettings


@dataclass(frozen=True)
class Parts:
    """The two halves of composed queries, embedded alone, in the order of the set.

    Args:
        image: ``[Q, D]``, the media as the row's targets are embedded, so that one that is in the corpus is known.
        text: ``[Q, D]``, the words as the row joins them, without its layout and words around them.
    """

    image: Tensor
    text: Tensor


def is_composed(retrieval_set: RetrievalSet) -> bool:
    """Whether every query is a medium and words."""
    return all(item.media and item.text.strip() for item in retrieval_set.queries.values())


def embed_parts(task: Task, retrieval_set: RetrievalSet, crew: Crew, media: MediaSettings) -> Parts:
    """Embed the media and the words of composed queries; what the crew's cache has is not embedded again."""
    queries = retrieval_set.queries
    pictures = {name: _picture(name, retrieval_set) for name in queries}
    bare = replace(task, query_instruction="", query_layout=None, query_text=None, query_regions="region")
    words = {name: Item(_texts(item), verbatim=False) for name, item in queries.items()}

    def named(items: Mapping[str, Item], what: str) -> Iterator[tuple[str, Item]]:
        return ((f"query {name}, {what}", item) for name, item in items.items())

    image = embed_items(
        task, "target", named(asked(task, "target", pictures), "its picture"), crew, media,
        label=f"{task.name}: pictures of queries", total=len(queries),
    )  # fmt: skip
    text = embed_items(
        bare, "query", named(asked(bare, "query", words), "its words"), crew, media, label=f"{task.name}: words"
    )
    return Parts(image, text)


def baseline_queries(parts: Parts) -> dict[str, Tensor]:
    """``[Q, D]`` of each baseline."""
    added = F.normalize(parts.image, dim=-1) + F.normalize(parts.text, dim=-1)
    return {"image": parts.image, "text": parts.text, "sum": F.normalize(added, dim=-1)}


def score_queries(task: Task, retrieval_set: RetrievalSet, queries: Tensor, targets: Tensor) -> dict[str, Any]:
    """Score, interval and metrics of query vectors under the rules of a row."""
    scoring = Scoring(task, retrieval_set)
    judged = scoring.judged(rank(task, retrieval_set, queries, targets, scoring.depth))
    values = scoring.values(judged)
    return {
        "score": scoring.score(values),
        "interval": list(scoring.interval(values)),
        "metrics": mean_metrics(judged, scoring.cutoffs, also=(task.metric,)),
    }


def baseline_scores(
    task: Task, retrieval_set: RetrievalSet, crew: Crew, media: MediaSettings, targets: Tensor
) -> dict[str, dict[str, Any]]:
    """What each baseline scores on a task; empty where its queries are not all composed.

    Args:
        task: the row.
        retrieval_set: its data.
        crew: who embeds.
        media: how media are decoded.
        targets: ``[N, D]`` of the corpus, embedded already.
    """
    if not is_composed(retrieval_set):
        return {}
    queries = baseline_queries(embed_parts(task, retrieval_set, crew, media))
    return {name: score_queries(task, retrieval_set, vectors, targets) for name, vectors in queries.items()}


def _picture(query: str, retrieval_set: RetrievalSet) -> Item:
    """The media of a query: the target that is just these, else an item of their own."""
    media = retrieval_set.queries[query].media
    own = (retrieval_set.corpus[target] for target in retrieval_set.references.get(query, ()))
    return next((item for item in own if item.content == media), Item(media, verbatim=False))


def _texts(item: Item) -> tuple[str, ...]:
    return tuple(part for part in item.content if isinstance(part, str))
