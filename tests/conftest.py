"""Shared fixtures: the published code's inputs and outputs, and small models made on the spot."""

import os
from functools import cache

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
import torch

from mmembed import Image, Item, Video
from tests import cases
from tests.models_hub import ModelHub, go_online


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """The models are so small that threads wait for each other longer than they compute."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def cache_of_their_own(tmp_path_factory):
    """No test finds embeddings of an earlier run, nor leaves any."""
    os.environ["MMEMBED_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def golden():
    return cases.GOLDEN


@pytest.fixture(scope="session")
def golden_item():
    return cases.golden_item


@pytest.fixture(scope="session")
def open_golden():
    """Open a published checkpoint under VLM2Vec's profile, once for each choice of settings; never train it."""
    return cache(cases.golden_model)


@pytest.fixture(scope="session")
def fresh_golden():
    """A new model from a published checkpoint, to train."""
    return cases.golden_model


@pytest.fixture(scope="session")
def picture():
    return cases.draw


@pytest.fixture(scope="session")
def scratch_settings():
    return cases.small_settings


@pytest.fixture(scope="session")
def scratch_embedder():
    """A small random embedder in evaluation mode, once for each choice; never train it."""

    @cache
    def make(family, **choices):
        return cases.small_embedder(family, **choices).eval()

    return make


@pytest.fixture
def fresh_embedder():
    """A new small random embedder, to train."""
    return cases.small_embedder


@pytest.fixture(scope="session")
def mixed_items(picture):
    """Texts, pictures, several pictures in a row, a clip, an instruction: six items of different lengths."""
    frames = tuple(picture(56, 84, seed) for seed in range(4))
    return [
        Item.of("a red circle"),
        Item.of({"image": picture(84, 56), "text": "the same, but blue"}),
        Item.of("a much longer text about a red circle, a blue circle and nothing else at all", "Find the picture."),
        Item((Image(picture(56, 56)), " or ", Image(picture(112, 56)), " then ", Image(picture(56, 56)))),
        Item.of({"video": Video(frames), "text": "describe the clip"}),
        Item.of({"video": Video(frames[:3]), "image": picture(56, 112), "text": "both"}, "Represent."),
    ]


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
    """A folder as the Hub's client keeps what it downloaded, empty."""
    folder = tmp_path / "hub"
    folder.mkdir()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder))
    return folder


@pytest.fixture
def model_hub(tmp_path, monkeypatch):
    """A Hub of models on this machine, which is the one that is asked."""
    made = ModelHub()
    go_online(monkeypatch, made.url, tmp_path / "cache")
    yield made
    made.close()
