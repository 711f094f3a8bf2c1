"""Every command starts as its users start it, and its help teaches."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMMANDS = {
    "scripts/train.py": "--config demo.yaml",
    "scripts/embed.py": "--model runs/demo/final",
    "scripts/search.py": "--index runs/items",
    "scripts/export.py": "--to st",
    "scripts/app.py": "--index runs/items",
    "scripts/screenshots.py": "make app",
    "scripts/inspect_batch.py": "--config demo.yaml",
    "scripts/list_released.py": "--only gme",
    "scripts/bench.py": "--workloads",
    "eval/run.py": "--benchmark demo",
    "eval/verify.py": "--no-run",
    "eval/submit.py": "--check",
    "eval/sweep.py": "--alpha",
    "eval/grid.py": "--select",
    "eval/compare.py": "--metric hit@1",
    "eval/side_by_side.py": "--benchmark demo",
    "scripts/demo_regions.py": "--encoders",
    "scripts/demo_cir.py": "--vlm",
    "scripts/make_pseudo_words.py": "--phrases",
    "scripts/own_data.py": "--picture-column file",
    "data_prep/own_data.py": "--query-picture-column before",
    "data_prep/demo.py": "--data-root",
    "data_prep/demo_gallery.py": "instructions.yaml",
    "data_prep/check.py": "TARGET",
    "data_prep/prepare.py": "SOURCE",
    "data_prep/convert.py": "export ms-swift",
    "data_prep/mask_captions.py": "--tagger",
    "data_prep/extract_frames.py": "CLIPS",
    "data_prep/make_cir_triplets.py": "--writer rules",
    "data_prep/rewrite_queries.py": "--captioner nearest",
    "scripts/import_upstream.py": "train_alltasks.yaml",
    "scripts/push.py": "--dry-run",
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_shows_its_help_from_any_folder(command, tmp_path):
    env = os.environ | {"PYTHONPATH": str(ROOT)}

    done = subprocess.run(
        [sys.executable, "-W", "error", str(ROOT / command), "--help"],
        cwd=tmp_path, env=env, capture_output=True, text=True,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert COMMANDS[command] in done.stdout
    assert done.stderr == ""
