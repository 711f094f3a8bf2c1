"""Every recipe trains two steps on miniatures, by the command that a reader would type."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RECIPES = sorted(path.name for path in (ROOT / "configs").glob("*.yaml"))

pytestmark = pytest.mark.acceptance


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


def test_the_published_recipes_are_there():
    published = ("vlm2vec", "vlm2vec_llava_next", "vlm2vec_qwen2vl_2b", "vlm2vec_qwen2vl_7b", "vlm2vec_v2")
    published += ("virtue_2b", "virtue_7b")

    assert {f"{name}.yaml" for name in (*published, "demo")} <= set(RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_trains_two_steps_on_its_miniature(name, root, tmp_path):
    command = [sys.executable, "scripts/train.py", "--config", name, "--miniature", "--output", tmp_path / "run"]

    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"MMEMBED_DATA": str(root)}, check=False
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout == f"trained: {tmp_path / 'run/final'}\n"
    assert "step 2/2" in done.stderr
    assert (tmp_path / "run/final/embedder.yaml").is_file()


@pytest.mark.parametrize("name", [name for name in RECIPES if name != "demo.yaml"])
def test_the_batches_of_a_recipe_are_shown_without_its_weights(name, root):
    command = [sys.executable, "scripts/inspect_batch.py", "--config", name, "--miniature", "--rows", "2"]

    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"MMEMBED_DATA": str(root)}, check=False
    )

    assert done.returncode == 0, done.stderr
    assert "32 pairs" in done.stdout
