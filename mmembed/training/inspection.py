"""What a training step contains, token for token, read from the very batch that the model gets."""

from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from mmembed.data.sampler import Sampler
from mmembed.models.prompts import Kind
from mmembed.models.sequence import KEPT_FREE, Batch
from mmembed.training.batches import TrainingBatch

MEDIA = (Kind.IMAGE, Kind.VIDEO)
AXES = ("time", "height", "width")
FREE_WORD = "<region>"
"""Shown for a token that a region encoder fills."""
PATCH_WORD = "<patch>"
"""Shown for a patch of a dual encoder, which no token of the vocabulary stands for."""


@dataclass(frozen=True)
class Span:
    """Tokens of one kind in a row; of media, and where regions are filled in, a word ``repeats`` times."""

    kind: Kind
    words: tuple[str, ...]
    repeats: int = 1


@dataclass(frozen=True)
class RowView:
    """A row as the model sees it: its spans, tokens, and the range of its positions on each axis."""

    spans: tuple[Span, ...]
    tokens: int
    positions: dict[str, tuple[int, int]]


@dataclass(frozen=True)
class PairView:
    """A pair of the step.

    Args:
        source: of the mixture.
        query_id: name of the query.
        query: its row.
        targets: its positives, then its hard negatives.
        masked: which targets of the step, by number, are no negatives of the query though they are not its own.
    """

    source: str
    query_id: str
    query: RowView
    targets: tuple[RowView, ...]
    masked: tuple[int, ...]


@dataclass(frozen=True)
class ChunkView:
    """A chunk: its rows, tokens, distinct media, and the share of computed tokens that are padding."""

    rows: int
    tokens: int
    media: int
    padding: float


@dataclass(frozen=True)
class SourceShare:
    """Rows that a source gave to some steps, and the rows that its share says."""

    source: str
    share: float
    rows: int
    expected: float


def view_pairs(batch: TrainingBatch, tokenizer: Any, masked: Tensor) -> list[PairView]:
    """The pairs of a step in order.

    Args:
        batch: the step.
        tokenizer: decodes single tokens.
        masked: ``[B, N]`` True where a target is left out of a query's comparison.
    """
    rows = [row for chunk in batch.chunks for row in view_rows(chunk, tokenizer)]
    owner = batch.candidates.owner
    views = []
    for i, (source, query_id) in enumerate(zip(batch.sources, batch.query_ids, strict=True)):
        own = batch.target_rows[owner == i].tolist()
        out = masked[i].nonzero()[:, 0].tolist()
        query = rows[int(batch.query_rows[i])]
        views.append(PairView(source, query_id, query, tuple(rows[row] for row in own), tuple(out)))
    return views


def view_rows(chunk: Batch, tokenizer: Any) -> list[RowView]:
    """The rows of a chunk in order."""
    lengths = chunk.lengths.tolist()
    rows = []
    flat = (torch.split(tensor, lengths, dim=-1) for tensor in (chunk.ids, chunk.kinds, chunk.positions))
    for ids, kinds, positions in zip(*flat, strict=True):
        low, high = positions.amin(dim=1).tolist(), positions.amax(dim=1).tolist()
        ranges = {axis: (low[i], high[i]) for i, axis in enumerate(AXES)}
        rows.append(RowView(tuple(_spans(ids, kinds, tokenizer)), len(ids), ranges))
    return rows


def view_chunks(batch: TrainingBatch) -> list[ChunkView]:
    """The chunks of a step in order."""
    views = []
    for chunk in batch.chunks:
        tokens, computed = int(chunk.lengths.sum()), len(chunk) * int(chunk.lengths.max())
        views.append(ChunkView(len(chunk), tokens, len(chunk.grids), 1 - tokens / computed))
    return views


def shares(sampler: Sampler, first_step: int, steps: int) -> list[SourceShare]:
    """The rows that each source gives to some steps, beside what its share says."""
    composition = sampler.composition(first_step, steps)
    rows = composition.total()
    return [SourceShare(name, share, composition[name], rows * share) for name, share in sampler.shares.items()]


def _spans(ids: Tensor, kinds: Tensor, tokenizer: Any) -> list[Span]:
    # tokens one by one: decoded together they would not show where one ends; those of no vocabulary have no word
    words = [
        tokenizer.decode([token]) if token >= 0 else PATCH_WORD if kind in MEDIA else FREE_WORD
        for kind, token in zip(kinds.tolist(), ids.tolist(), strict=True)
    ]
    spans = []
    counted = [kind in MEDIA or token == KEPT_FREE for kind, token in zip(kinds.tolist(), ids.tolist(), strict=True)]
    for (kind, alike), group in groupby(zip(kinds.tolist(), counted, words, strict=True), key=lambda token: token[:2]):
        found = tuple(word for _, _, word in group)
        if alike:
            spans += [Span(Kind(kind), (word,), len(list(same))) for word, same in groupby(found)]
        else:
            spans.append(Span(Kind(kind), found))
    return spans
