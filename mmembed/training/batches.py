"""From the pairs of a step to chunks ready for the model; runs in the workers."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mmembed.errors import InputError
from mmembed.items import Item, Pair
from mmembed.losses.candidates import Candidates
from mmembed.models.backbone import Preprocessor
from mmembed.models.chunks import plan_chunks
from mmembed.models.sequence import Batch, Row, collate
from mmembed.models.settings import Side
from mmembed.training.settings import Chunks


@dataclass
class TrainingBatch:
    """A step's pairs as chunks of distinct rows.

    Args:
        step: the step.
        chunks: the distinct rows of both sides, cut.
        query_rows: for each query, its row in the chunks' rows taken one after another ``[B]``.
        target_rows: the same for each target ``[N]``.
        candidates: who is who among the targets.
        sources: source of each pair, for logs and errors.
        query_ids: name of each query, for errors.
    """

    step: int
    chunks: list[Batch]
    query_rows: Tensor
    target_rows: Tensor
    candidates: Candidates
    sources: list[str]
    query_ids: list[str]

    def to(self, device: torch.device | str) -> "TrainingBatch":
        """The batch on ``device``; Lightning calls this."""
        return replace(
            self,
            chunks=[chunk.to(device) for chunk in self.chunks],
            query_rows=self.query_rows.to(device),
            target_rows=self.target_rows.to(device),
            candidates=self.candidates.to(device),
        )


class PairPreparer:
    """Pairs -> TrainingBatch, a picklable function of its arguments.

    The targets are, for each pair in turn, its first positive and its hard negatives. Equal rows are held, and will be
    encoded, once.
    """

    def __init__(self, preprocessor: Preprocessor, chunks: Chunks) -> None:
        self.preprocessor = preprocessor
        self.chunks = chunks

    def __call__(self, step: int, pairs: Sequence[Pair]) -> TrainingBatch:
        """Prepare one step.

        Raises:
            InputError: a row that cannot be used, named by source and query id.
        """
        queries = [self._row(pair, pair.query, "query") for pair in pairs]
        targets: list[Row] = []
        owner: list[int] = []
        labels: list[int] = []
        items: list[Item] = []
        for i, pair in enumerate(pairs):
            labels.append(len(targets))
            for item in (pair.positives[0], *(negative.item for negative in pair.negatives)):
                targets.append(self._row(pair, item, "target"))
                items.append(item)
                owner.append(i)
        chunks, places = self._cut([*queries, *targets])
        rows = torch.tensor([places[row.fingerprint] for row in (*queries, *targets)])
        return TrainingBatch(
            step=step,
            chunks=chunks,
            query_rows=rows[: len(queries)],
            target_rows=rows[len(queries) :],
            candidates=Candidates(
                labels=torch.tensor(labels),
                owner=torch.tensor(owner),
                query_keys=torch.tensor([_number(pair.query.fingerprint()) for pair in pairs]),
                target_keys=torch.tensor([_number(item.content_fingerprint()) for item in items]),
                classes=_classes(pairs),
            ),
            sources=[pair.source for pair in pairs],
            query_ids=[pair.query_id for pair in pairs],
        )

    def _row(self, pair: Pair, item: Item, side: Side) -> Row:
        try:
            return self.preprocessor(item, side)
        except InputError as error:
            raise error.within(f"{pair.source}: {pair.query_id}: {side}") from error

    def _cut(self, rows: Sequence[Row]) -> tuple[list[Batch], dict[str, int]]:
        distinct = list({row.fingerprint: row for row in rows}.values())
        plan = plan_chunks(
            [len(row) for row in distinct],
            max_rows=self.chunks.rows,
            max_tokens=self.chunks.tokens,
            max_padding=self.chunks.padding,
        )
        order = [i for chunk in plan for i in chunk]
        places = {distinct[i].fingerprint: place for place, i in enumerate(order)}
        return [collate([distinct[i] for i in chunk]) for chunk in plan], places


def _number(name: str) -> int:
    """63 bits of a fingerprint: enough that two contents of a batch never share them, and fits a tensor."""
    return int(name[:16], 16) >> 1


def _classes(pairs: Sequence[Pair]) -> Tensor:
    known: dict[tuple[str, str], int] = {}
    return torch.tensor([known.setdefault((p.source, p.class_id), len(known)) if p.class_id else -1 for p in pairs])
