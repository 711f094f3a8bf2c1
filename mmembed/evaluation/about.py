"""What an evaluation was made with: versions of the libraries and of this package, settings of the model."""

import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from mmembed import __version__
from mmembed.models.embedder import Embedder
from mmembed.settings import dump_settings

ROOT = Path(__file__).parents[2]


def about(model: Embedder, parts: Mapping[str, str], *, processes: int = 1) -> dict[str, Any]:
    """What ``scores.json`` says of how its numbers came about.

    Args:
        model: who embeds; its settings hold the style of its prompts and its preprocessing.
        parts: its identity, see :mod:`mmembed.models.identity`; names the libraries.
        processes: how many processes embed.
    """
    return {
        "versions": versions(parts),
        "settings": dump_settings(model.settings),
        "device": device_words(model.device),
        "processes": processes,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def device_words(device: torch.device) -> str:
    """A device in words; a GPU with its name and the version of CUDA, e.g. ``cuda:0, NVIDIA H100, CUDA 12.8``."""
    if device.type != "cuda":
        return str(device)
    return f"{device}, {torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}"


def versions(parts: Mapping[str, str]) -> dict[str, str | None]:
    """Versions by name: this package and its commit, Python, the libraries of an identity; None where there is none."""
    libraries = {name.removeprefix("library."): found for name, found in parts.items() if name.startswith("library.")}
    return {
        "mmembed": __version__,
        "commit": commit(),
        "python": platform.python_version(),
        **{name: None if found == "none" else found for name, found in libraries.items()},
    }


def commit(root: Path = ROOT) -> str | None:
    """The git commit that a folder is the checkout of, ``-dirty`` behind it where files differ; None without one."""
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return None  # no git, or nothing committed: nobody can tell
    return answer.stdout.strip()
