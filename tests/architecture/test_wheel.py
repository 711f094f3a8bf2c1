"""The wheel is whole: built without a network and installed alone, it makes, saves, opens, embeds and searches."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "mmembed"
BUILT_FROM = ("setup.cfg", "pyproject.toml", "README.md", "LICENSE")
USE_IT = """
import sys
from pathlib import Path
import mmembed
from mmembed import Embedder
from mmembed.index.topk import top_k
from mmembed.models.profiles import load_profile
from mmembed.models.settings import EmbedderSettings, QwenVL, Scratch

assert Path(mmembed.__file__).is_relative_to(sys.argv[1]), mmembed.__file__
words = ["a red circle", "a blue square", "a green cross"]
scratch = Scratch(text={"initializer_range": 0.3})
Embedder(EmbedderSettings(QwenVL(scratch=scratch)), texts=words).save("model")
model = Embedder.from_pretrained("model", device="cpu")
scores, rows = top_k(model.encode(words), model.encode(words, side="target"), 1)
assert rows[:, 0].tolist() == [0, 1, 2], rows
assert load_profile("vlm2vec").embedder.normalize is True
"""


def quietly(*command, cwd, **variables):
    done = subprocess.run(command, cwd=cwd, env=os.environ | variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy, because building writes into the tree it builds from."""
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    shutil.copytree(PACKAGE, source / "mmembed", ignore=shutil.ignore_patterns("__pycache__"))
    for name in BUILT_FROM:
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    quietly(*pip, "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", built, source, cwd=source)
    (found,) = built.glob("*.whl")
    return found


def test_the_wheel_holds_every_file_of_the_package(wheel):
    files = {p for p in PACKAGE.rglob("*") if p.is_file() and "__pycache__" not in p.parts}
    wanted = {str(path.relative_to(ROOT)) for path in files}

    packed = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("mmembed/")}

    assert {"mmembed/py.typed", "mmembed/models/profiles/vlm2vec.yaml"} <= wanted
    assert any(name.endswith(".html.j2") for name in wanted)
    assert packed == wanted


@pytest.mark.acceptance
def test_the_wheel_alone_embeds_and_searches(wheel, tmp_path):
    target, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    quietly(*pip, "install", "--no-deps", "--no-index", "--target", target, wheel, cwd=elsewhere)

    quietly(sys.executable, "-c", USE_IT, target, cwd=elsewhere, PYTHONPATH=str(target))

    assert (elsewhere / "model/embedder.yaml").is_file()
