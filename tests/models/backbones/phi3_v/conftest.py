"""A small random model, the published tiny checkpoint, and copies of it to break."""

import json
import shutil
from functools import cache

import pytest
from safetensors.torch import load_file, save_file

from mmembed import Embedder
from mmembed.models.settings import ChatPrompt, EmbedderSettings, Phi3V, Scratch
from tests.cases import GOLDEN, LOUD, WORDS

PUBLISHED = GOLDEN / "vlm2vec/phi3_v"


def open_directory(path, **overrides):
    return Embedder.from_pretrained(path, profile="vlm2vec_phi3_v", device="cpu", **overrides)


def make_small(*, prompt=None, vision=None, **backbone):
    scratch = Scratch("phi3_v", text=LOUD, vision=LOUD | (vision or {}))
    settings = EmbedderSettings(Phi3V(scratch=scratch, **backbone), prompt or ChatPrompt(content="text"))
    return Embedder(settings, texts=WORDS)


@pytest.fixture(scope="session")
def open_copy():
    return open_directory


@pytest.fixture(scope="session")
def open_published():
    """The published tiny checkpoint, once for each choice of settings; never train it."""
    return cache(lambda **overrides: open_directory(PUBLISHED, **overrides))


@pytest.fixture(scope="session")
def fresh_published():
    return lambda **overrides: open_directory(PUBLISHED, **overrides)


@pytest.fixture(scope="session")
def small():
    """A small random embedder in evaluation mode, once for each choice; never train it."""
    return cache(lambda **choices: make_small(**choices).eval())


@pytest.fixture(scope="session")
def fresh_small():
    return make_small


@pytest.fixture
def copy(tmp_path):
    return shutil.copytree(PUBLISHED, tmp_path / "checkpoint")


@pytest.fixture
def edit_weights(copy):
    def edit(change):
        weights = load_file(copy / "model.safetensors")
        change(weights)
        save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})

    return edit


@pytest.fixture
def edit_json(copy):
    def edit(name, **changes):
        path = copy / name
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return edit
