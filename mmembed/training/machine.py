"""What a run stands on: versions, devices, memory, and how busy they are."""

import platform
import resource
import sys
from importlib.metadata import version

import torch

from mmembed.training.settings import MB

PACKAGES = ("mmembed", "torch", "lightning", "transformers")


def versions() -> str:
    """Versions of the packages that decide a run's numbers, and of Python."""
    return ", ".join([*(f"{name} {version(name)}" for name in PACKAGES), f"python {platform.python_version()}"])


def device_name(device: torch.device) -> str:
    """A GPU by its name and memory, a CPU by the threads that compute."""
    if device.type == "cuda":
        gpu = torch.cuda.get_device_properties(device)
        return f"{gpu.name} ({gpu.total_memory / (1 << 30):.0f} GiB)"
    return f"{device.type} ({counted(torch.get_num_threads(), 'thread')})"


def memory(device: torch.device) -> dict[str, float]:
    """Most memory in use so far, in MiB: resident of this process, and allocated on its GPU."""
    # Linux counts in KiB, macOS in bytes
    unit = 1 if sys.platform == "darwin" else 1 << 10
    used = {"machine/memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / MB}
    if device.type == "cuda":
        used["machine/gpu_memory_mib"] = torch.cuda.max_memory_allocated(device) / MB
    return used


def gpu_utilisation(device: torch.device) -> float | None:
    """Share of the last moments in which the GPU computed, as its driver says; None where it cannot be asked."""
    try:
        return torch.cuda.utilization(device) / 100
    # nvidia-ml-py may be missing, and its own errors (a GPU in parts, a container) have no class that torch knows
    except Exception:
        return None


def counted(number: int, one: str, many: str | None = None) -> str:
    """``1 thread``, ``2 threads``."""
    return f"{number} {one if number == 1 else many or one + 's'}"
