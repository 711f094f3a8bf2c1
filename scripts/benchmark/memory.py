"""The most memory that was in use, and how far it rose. No torch here, which would be most of it."""

import ctypes
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

STATUS = Path("/proc/self/status")


@dataclass
class Memory:
    """The memory of a block, known when it ends.

    Args:
        peak_mb: the most that was in use, in MiB.
        rise_mb: the same above what was in use before.
    """

    peak_mb: float = 0.0
    rise_mb: float = 0.0


@contextmanager
def peak_memory(device: "torch.device | None" = None) -> Iterator[Memory]:
    """The most memory inside the block: of a GPU, else of this process (Linux). What nobody uses is freed first."""
    seen = Memory()
    release()
    if device is not None and device.type == "cuda":
        cuda = sys.modules["torch"].cuda
        cuda.reset_peak_memory_stats(device)
        before = cuda.memory_allocated(device) / 2**20
        yield seen
        peak = cuda.max_memory_allocated(device) / 2**20
    else:
        # the kernel forgets the most it saw before
        Path("/proc/self/clear_refs").write_text("5")
        before = _in_use("VmRSS")
        yield seen
        # not getrusage, which a new process inherits
        peak = _in_use("VmHWM")
    seen.peak_mb, seen.rise_mb = round(peak, 1), round(max(0.0, peak - before), 1)


def release() -> None:
    """Give back what nobody uses: objects in circles, pages that malloc holds (glibc), what torch holds of a GPU."""
    gc.collect()
    trim: Any = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def _in_use(key: str) -> float:
    status = dict(line.split(":", 1) for line in STATUS.read_text().splitlines())
    return int(status[key].split()[0]) / 2**10
