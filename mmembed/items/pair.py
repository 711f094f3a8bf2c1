"""Pair: what training learns from."""

from dataclasses import dataclass, field

from mmembed.errors import InputError
from mmembed.items.item import Item


@dataclass(frozen=True)
class Negative:
    """A target known to be wrong for its query, and how it was found.

    Args:
        item: the target.
        miner: what found it, e.g. ``bm25``; empty when given with the data.
        rank: its rank in the miner's list, the first is 1.
        score: the miner's score.
        target_id: name of the target in its source.
    """

    item: Item
    miner: str = ""
    rank: int | None = None
    score: float | None = None
    target_id: str = ""


@dataclass(frozen=True)
class Pair:
    """What training learns from: a query, the targets that answer it, and targets that do not.

    Args:
        query: the query.
        positives: at least one right target.
        negatives: wrong targets with their provenance.
        teacher_scores: a teacher's score for each positive, then each negative; empty without a teacher.
        query_id: name of the query in its source.
        target_ids: names of the positives in their source.
        class_id: pairs of one class are never each other's negatives when class masks are on.
        source: name of the source the pair came from.
    """

    query: Item
    positives: tuple[Item, ...]
    negatives: tuple[Negative, ...] = ()
    teacher_scores: tuple[float, ...] = ()
    query_id: str = ""
    target_ids: tuple[str, ...] = field(default=())
    class_id: str = ""
    source: str = ""

    def __post_init__(self) -> None:
        if not self.positives:
            raise InputError(
                "pair.positives",
                expected="at least one",
                got="none",
                remedy="give the target that answers the query",
            )
        rated = len(self.positives) + len(self.negatives)
        if self.teacher_scores and len(self.teacher_scores) != rated:
            raise InputError(
                "pair.teacher_scores",
                expected=f"{rated} scores, one for each positive then negative",
                got=len(self.teacher_scores),
                remedy="score every target or none",
            )
