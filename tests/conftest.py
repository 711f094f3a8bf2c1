"""Shared fixtures: the published code's inputs and outputs, and small models made on the spot."""

import os
import re
from functools import cache
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
import PIL.Image
import pytest
import torch

from mmembed import Embedder, Image, Item, Video
from mmembed.media.settings import AllFrames, MediaSettings
from mmembed.models.settings import ChatPrompt, EmbedderSettings, QwenVL, Scratch

GOLDEN = Path(__file__).parent / "golden"
FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")

# large random weights: at the libraries' initial scale every input would have nearly the same embedding
LOUD = {"initializer_range": 0.3}
# two fed layers, and a third layer of the language model so that both reach the last token
DEEP = {"qwen3_vl": ({"num_hidden_layers": 3}, {"deepstack_visual_indexes": [0, 1]})}
WORDS = ["a red circle", "the same, but blue", "Represent the given image.", "describe the clip", "system user"]


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """The models are so small that threads wait for each other longer than they compute."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def golden():
    return GOLDEN


@pytest.fixture(scope="session")
def golden_item():
    """A published case's text with {IMG} and {VID}, and its paths, as an Item."""

    def make(text, paths):
        content, media = [], [GOLDEN / "vlm2vec/inputs" / path for path in paths or []]
        for piece in re.split(r"(\{IMG\}|\{VID\}|<\|image_pad\|>|<\|video_pad\|>)", text):
            if piece in ("{IMG}", "<|image_pad|>"):
                content.append(Image(media.pop(0)))
            elif piece in ("{VID}", "<|video_pad|>"):
                content.append(Video(tuple(media), num_frames=len(media)))
            elif piece:
                content.append(piece)
        return Item(tuple(content))

    return make


@pytest.fixture(scope="session")
def open_golden():
    """Open a published checkpoint under VLM2Vec's profile, once for each choice of settings; never train it."""

    @cache
    def open_once(family, **overrides):
        return fresh_golden_model(family, **overrides)

    return open_once


@pytest.fixture(scope="session")
def fresh_golden():
    """A new model from a published checkpoint, to train."""
    return fresh_golden_model


def fresh_golden_model(family, **overrides):
    return Embedder.from_pretrained(GOLDEN / "vlm2vec" / family, profile="vlm2vec", device="cpu", **overrides)


@pytest.fixture(scope="session")
def picture():
    """A picture of random pixels, the same for the same size and seed."""

    def make(width, height, seed=0):
        pixels = np.random.default_rng((seed, width, height)).integers(0, 256, (height, width, 3), dtype=np.uint8)
        return PIL.Image.fromarray(pixels)

    return make


@pytest.fixture(scope="session")
def scratch_settings():
    """Settings of a small random model of a family, with its own chat template and positions."""

    def make(family, *, prompt=None, pooler=None, **backbone):
        text, vision = DEEP.get(family, ({}, {}))
        given = {
            "scratch": Scratch(family, text=LOUD | text, vision=LOUD | vision),
            "min_side": 0,
            "resize": "torchvision",
            "media": MediaSettings(alpha="white", sampling=AllFrames()),
        }
        kinds = {} if pooler is None else {"pooler": pooler}
        return EmbedderSettings(QwenVL(**(given | backbone)), prompt=prompt or ChatPrompt(), **kinds)

    return make


@pytest.fixture(scope="session")
def scratch_embedder(scratch_settings):
    """A small random embedder in evaluation mode, once for each choice; never train it."""

    @cache
    def make(family, **choices):
        return Embedder(scratch_settings(family, **choices), texts=WORDS).eval()

    return make


@pytest.fixture
def fresh_embedder(scratch_settings):
    """A new small random embedder, to train."""

    def make(family="qwen2_vl", **choices):
        return Embedder(scratch_settings(family, **choices), texts=WORDS)

    return make


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
