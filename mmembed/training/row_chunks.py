"""The rows of a step as chunks: equal rows once; those that pseudo-words are put into apart, behind the others."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mmembed.models.chunks import plan_chunks
from mmembed.models.prompts import Kind
from mmembed.models.sequence import Batch, Row, collate
from mmembed.training.settings import Chunks


def cut_rows(
    rows: Sequence[Row], filled: Sequence[bool], settings: Chunks, filler: Row | None
) -> tuple[list[Batch], int, Tensor]:
    """Cut the rows of a step.

    Args:
        rows: all of them, equal ones as often as they occur.
        filled: for each, whether a pseudo-word of its own is put into it.
        settings: how large a chunk may be.
        filler: a row that runs every part of the model, added to chunks that would not; None adds none.

    Returns:
        The chunks; how many of the last hold filled rows; and each row's place in the chunks' rows taken one after
        another ``[R]``.
    """
    whole = {row.fingerprint: row for row, apart in zip(rows, filled, strict=True) if not apart}
    # by its number, for what is put into it is not what is put into an equal row
    apart = {str(i): row for i, row in enumerate(rows) if filled[i]}
    places: dict[str, int] = {}
    first = _cut(whole, places, 0, settings, filler)
    last = _cut(apart, places, sum(map(len, first)), settings, filler)
    names = (str(i) if filled[i] else row.fingerprint for i, row in enumerate(rows))
    return [*first, *last], len(last), torch.tensor([places[name] for name in names], dtype=torch.long)


def _cut(
    rows: Mapping[str, Row], places: dict[str, int], start: int, settings: Chunks, filler: Row | None
) -> list[Batch]:
    """The rows as chunks; ``places`` takes up where each of them stands, counted from ``start``."""
    names = list(rows)
    plan = plan_chunks(
        [len(row) for row in rows.values()],
        max_rows=settings.rows,
        max_tokens=settings.tokens,
        max_padding=settings.padding,
        sort=settings.sort,
    )
    chunks: list[Batch] = []
    for chosen in plan:
        chunk = [rows[names[i]] for i in chosen]
        places |= {names[row]: start + i for i, row in enumerate(chosen)}
        if filler is not None and not _runs_all(chunk, filler):
            chunk.append(filler)
        chunks.append(collate(chunk))
        start += len(chunk)
    return chunks


def _runs_all(chunk: Sequence[Row], filler: Row) -> bool:
    """Whether a chunk runs every part of the model that the filler runs: a tower, a text model, a region encoder."""
    media = not filler.media or any(row.media for row in chunk)
    regions = not _has_region(filler) or any(map(_has_region, chunk))
    return media and regions and (not _has_text(filler) or any(map(_has_text, chunk)))


def _has_region(row: Row) -> bool:
    """Whether a region encoder has something to do for it, in its tokens or in its pixels."""
    return bool(row.regions) or any(medium.marks is not None for medium in row.media)


def _has_text(row: Row) -> bool:
    return bool((row.kinds == Kind.TEXT).any())
