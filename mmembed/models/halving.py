"""A batch as two, of its first rows and of its last, for a device that has no memory for both at once."""

from dataclasses import replace

from mmembed.models.features import select_media
from mmembed.models.sequence import Batch


def halved(batch: Batch) -> tuple[Batch, Batch]:
    """Cut a batch of at least two rows; each half is the batch that its rows alone would be.

    A medium that both halves show is in both. Still pictures stay as deep in time as clips of the other half made them.
    """
    middle = len(batch) // 2
    if middle == 0:
        raise ValueError(f"halved: expected a batch of at least 2 rows, got {len(batch)}")
    return _rows(batch, 0, middle), _rows(batch, middle, len(batch))


def _rows(batch: Batch, start: int, stop: int) -> Batch:
    first, last = (int(batch.lengths[:row].sum()) for row in (start, stop))
    first_slot, last_slot = (int(batch.slot_counts[:row].sum()) for row in (start, stop))
    slots = batch.slots[first_slot:last_slot]
    media = sorted(set(slots.tolist()))
    # where each medium stands among those that are left
    numbers = {medium: number for number, medium in enumerate(media)}
    return replace(
        select_media(batch, media) if media else _without_media(batch),
        ids=batch.ids[first:last],
        kinds=batch.kinds[first:last],
        positions=batch.positions[:, first:last],
        lengths=batch.lengths[start:stop],
        is_query=batch.is_query[start:stop],
        slots=slots.new_tensor([numbers[medium] for medium in slots.tolist()]),
        slot_counts=batch.slot_counts[start:stop],
        regions=[
            replace(slot, row=slot.row - start, medium=numbers[slot.medium])
            for slot in batch.regions
            if start <= slot.row < stop
        ],
    )


def _without_media(batch: Batch) -> Batch:
    return replace(
        batch, pixels=None, marks=None, guides=None, media=[],
        grids=batch.grids[:0], blocks=batch.blocks[:0], sizes=batch.sizes[:0],
    )  # fmt: skip
