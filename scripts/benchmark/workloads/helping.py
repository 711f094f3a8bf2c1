"""What ``--help`` of the commands costs before it says anything."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmembed.errors import InputError
from scripts.benchmark.bench import Bench
from scripts.benchmark.measuring import Comparison

ROOT = Path(__file__).resolve().parents[3]
FOLDERS = ("scripts", "eval", "data_prep")
HEAVY = ("torch", "transformers", "lightning")
SHOW_HELP = """
import contextlib, json, os, runpy, sys
path = sys.argv[1]
sys.argv = [path, "--help"]
with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
    try:
        runpy.run_path(path, run_name="__main__")
    except SystemExit as done:
        if done.code:
            raise
print(json.dumps(sorted(sys.modules)))
"""


def modules(bench: Bench) -> Comparison:
    """A count for each command, and those that import what computes."""
    names = bench.size.commands or tuple(commands())
    seen: dict[str, list[str]] = {}

    def count() -> Tensor:
        seen.update({name: imported_by(name) for name in names})
        return torch.tensor([len(seen[name]) for name in names])

    def facts() -> dict[str, Any]:
        counts = {name: len(found) for name, found in seen.items()}
        heavy = {name: sorted({*HEAVY} & {*found}) for name, found in seen.items()}
        return {
            "modules": counts,
            "most": max(counts.values()),
            "heavy": {n: found for n, found in heavy.items() if found},
        }

    return Comparison(count, facts=facts, timed=0)


def commands() -> list[str]:
    """The files that are started with options."""
    files = [path for folder in FOLDERS for path in sorted((ROOT / folder).glob("*.py"))]
    return [
        str(path.relative_to(ROOT))
        for path in files
        if "__main__" in (text := path.read_text(encoding="utf-8")) and "argparse" in text
    ]


def imported_by(command: str) -> list[str]:
    """The modules there are once a command has shown its help.

    Raises:
        InputError: it shows none; what it says instead is given.
    """
    done = subprocess.run(
        [sys.executable, "-c", SHOW_HELP, str(ROOT / command)], capture_output=True, text=True, cwd=ROOT
    )
    if done.returncode != 0:
        said = " / ".join(done.stderr.strip().splitlines()[-3:])
        raise InputError(
            command, expected="its help", got=f"exit code {done.returncode}: {said}",
            remedy=f"run python {command} --help",
        )  # fmt: skip
    found: list[str] = json.loads(done.stdout)
    return found
