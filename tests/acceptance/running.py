"""Commands as a person runs them, in a folder of their own."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def run_script(name, folder, *options):
    """What a script of ``scripts/`` prints; its data lie in ``folder/data``, and it must end well."""
    command = [sys.executable, str(ROOT / "scripts" / name), "--data-root", "data", *options]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout
