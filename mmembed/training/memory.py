"""Running out of memory: what a chunk takes, its halves, and the error in words where they do not help."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mmembed.errors import InputError
from mmembed.models.halving import halved
from mmembed.models.sequence import Batch
from mmembed.models.settings import BackboneSettings
from mmembed.training.batches import TrainingBatch
from mmembed.training.room import Room, is_out_of_memory


def tokens_of(chunk: Batch) -> int:
    """The tokens of a chunk, padding counted."""
    return len(chunk) * int(chunk.lengths.max())


def halves_of(chunk: Batch) -> tuple[Batch, Batch] | None:
    """The chunk as two; None of a single row."""
    return halved(chunk) if len(chunk) > 1 else None


def rows_stand_apart(backbone: BackboneSettings) -> bool:
    """Whether a row's embedding is the same, within rounding, whatever rows are beside it: half a chunk will do.

    It is not where the longest row chooses the frequencies of all, where attention depends on there being padding, and
    in int8, which looks for outliers among the activations of all.
    """
    read = {"longrope_by": "batch", "unpadded_causal": True, "quantize": "int8"}
    return not any(getattr(backbone, name, None) == value for name, value in read.items())


@contextmanager
def memory_explained(batch: TrainingBatch, room: Room[Any]) -> Iterator[None]:
    """Turn running out of memory inside the block into an error that says what was too large and what to change.

    Raises:
        InputError: the block ran out of memory.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise _too_large(batch, room, error) from error


def _too_large(batch: TrainingBatch, room: Room[Any], error: BaseException) -> InputError:
    largest = max(batch.chunks, key=tokens_of, default=None)
    size = "none" if largest is None else f"{len(largest)} rows of up to {int(largest.lengths.max())} tokens"
    said = " ".join(str(error).split())[:200]
    where = f"validation: {batch.part}" if batch.part else f"batch {batch.number}"
    if room.stuck:
        return InputError(
            where, expected="rows that fit the memory one by one",
            got=f"out of memory at a chunk of one row of {room.stuck} tokens ({said})",
            remedy="lower the backbone's max_pixels or max_length, or turn on backbone.gradient_checkpointing, which "
            "make a new run",
        )  # fmt: skip
    return InputError(
        where, expected="chunks that fit the memory",
        got=f"out of memory; the largest chunk has {size} ({said})",
        remedy="lower chunks.keep_mb and give the same command; or lower chunks.tokens or chunks.rows, or turn on "
        "backbone.gradient_checkpointing, which make a new run",
    )  # fmt: skip
