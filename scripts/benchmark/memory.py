"""The most memory that was in use. No torch here, which would be most of it."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@contextmanager
def peak_memory(device: "torch.device | None" = None) -> Iterator[list[float]]:
    """The most memory inside the block, in MiB, told when the block ends: of a GPU, else of this process (Linux)."""
    peak = [0.0]
    if device is not None and device.type == "cuda":
        cuda = sys.modules["torch"].cuda
        cuda.reset_peak_memory_stats(device)
        yield peak
        peak[0] = round(cuda.max_memory_allocated(device) / 2**20, 1)
        return
    # the kernel forgets the most it saw before
    Path("/proc/self/clear_refs").write_text("5")
    yield peak
    peak[0] = round(most_memory(), 1)


def most_memory() -> float:
    """The most memory that this process had, in MiB; not getrusage, which a new process inherits."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) / 2**10
