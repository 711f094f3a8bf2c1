"""Running out of memory, in words."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from mmembed.errors import InputError
from mmembed.training.batches import TrainingBatch


@contextmanager
def memory_explained(batch: TrainingBatch) -> Iterator[None]:
    """Turn running out of memory inside the block into an error that names the largest chunk and what to change.

    The chunk is not cut and tried again: another cut draws other dropout, and the step would no longer be a function
    of the recipe.

    Raises:
        InputError: the block ran out of memory.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise _too_large(batch, error) from error
    except RuntimeError as error:
        # how torch's allocator for the CPU complains
        if "DefaultCPUAllocator" not in str(error):
            raise
        raise _too_large(batch, error) from error


def _too_large(batch: TrainingBatch, error: BaseException) -> InputError:
    largest = max(batch.chunks, key=lambda chunk: len(chunk) * int(chunk.lengths.max()), default=None)
    size = "none" if largest is None else f"{len(largest)} rows of up to {int(largest.lengths.max())} tokens"
    return InputError(
        f"batch {batch.number}", expected="chunks that fit the memory",
        got=f"out of memory; the largest chunk has {size} ({' '.join(str(error).split())[:200]})",
        remedy="lower chunks.keep_mb and give the same command; or lower chunks.tokens or chunks.rows, or turn on "
        "backbone.gradient_checkpointing, which make a new run",
    )  # fmt: skip
