"""Contact sheets: queries beside what they found, as values that a page shows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mmembed.evaluation.benchmark import Task
from mmembed.evaluation.metrics import metric_and_k
from mmembed.evaluation.rankings import Ranking
from mmembed.evaluation.retrieval_set import RetrievalSet
from mmembed.evaluation.thumbnails import Shown, Thumbnails
from mmembed.evaluation.written import instruction_of
from mmembed.items import Item, source_fingerprint


@dataclass(frozen=True)
class Card:
    """A target on a contact sheet.

    Args:
        target_id: its name.
        place: its rank in words, e.g. ``#3``.
        score: its score; None where the target was not among those kept.
        right: whether it is relevant.
        is_of_query: whether it shows a medium of the query itself, as where a composed query finds its own picture.
        parts: its content.
    """

    target_id: str
    place: str
    score: float | None
    right: bool
    is_of_query: bool
    parts: list[Shown]


@dataclass(frozen=True)
class Example:
    """A query on a contact sheet: its content, the first targets it found, and a right one it did not find there.

    Args:
        query_id: its name.
        instruction: the one it was given; empty without.
        groups: the values of each kind of group it is in.
        parts: its content.
        found: the first targets, best first.
        missing: a right target that is not among them; None where one of them is right.
    """

    query_id: str
    instruction: str
    groups: Mapping[str, tuple[str, ...]]
    parts: list[Shown]
    found: list[Card]
    missing: Card | None


@dataclass(frozen=True)
class ContactSheet:
    """Makes the examples of one task."""

    task: Task
    retrieval_set: RetrievalSet
    thumbnails: Thumbnails
    num_targets: int

    def example(self, ranking: Ranking) -> Example:
        """A query beside what it found."""
        query = self.retrieval_set.queries[ranking.query_id]
        shown = min(self.num_targets, len(ranking.targets))
        found = [self._found(ranking, place) for place in range(shown)]
        return Example(
            ranking.query_id,
            instruction_of(self.task, "query", query) or "",
            self.retrieval_set.groups.get(ranking.query_id, {}),
            self.thumbnails.show(query),
            found,
            None if any(card.right for card in found) else self._missing(ranking),
        )

    def _found(self, ranking: Ranking, place: int) -> Card:
        return self._card(ranking, ranking.targets[place], f"#{place + 1}", ranking.scores[place])

    def _missing(self, ranking: Ranking) -> Card:
        """The best right target that is not among those shown."""
        if ranking.first_hit is not None:
            return self._found(ranking, ranking.first_hit - 1)
        best = max(ranking.relevant, key=lambda target: ranking.relevant[target])
        return self._card(ranking, best, f"beyond #{len(ranking.targets)}", None)

    def _card(self, ranking: Ranking, target_id: str, place: str, score: float | None) -> Card:
        query, target = self.retrieval_set.queries[ranking.query_id], self.retrieval_set.corpus[target_id]
        is_of_query = bool(_sources(query) & _sources(target))
        right = target_id in ranking.relevant
        return Card(target_id, place, score, right, is_of_query, self.thumbnails.show(target))


def is_hit(ranking: Ranking, task: Task) -> bool:
    """Whether a right target is within the cut-off of the task's metric."""
    return ranking.first_hit is not None and ranking.first_hit <= metric_and_k(task.metric)[1]


def spread(rankings: Sequence[Ranking], most: int) -> list[Ranking]:
    """At most ``most`` of them, evenly spread, so that a sheet is not about the first class alone."""
    count = min(most, len(rankings))
    return [rankings[i * len(rankings) // count] for i in range(count)]


def _sources(item: Item) -> set[str]:
    """Names the bytes behind an item's media, whatever is prompted in them."""
    return {source_fingerprint(medium.source) for medium in item.media}
