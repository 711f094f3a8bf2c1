"""The published checkpoints of the LLaVA family."""

from functools import cache

import pytest

from mmembed import Embedder
from tests.cases import GOLDEN


@pytest.fixture(scope="session")
def open_instructcir():
    """InstructCIR's checkpoint under its profile, once for each choice of settings; never train it."""

    @cache
    def opened(path=GOLDEN / "cir/instructcir/ckpt", **overrides):
        return Embedder.from_pretrained(path, profile="instructcir", device="cpu", **overrides)

    return opened


@pytest.fixture(scope="session")
def open_llava_next():
    """VLM2Vec's LLaVA-NeXT under its profile, once for each choice of settings; never train it."""

    @cache
    def opened(**overrides):
        directory = GOLDEN / "vlm2vec/llava_next"
        return Embedder.from_pretrained(directory, profile="vlm2vec_llava_next", device="cpu", **overrides)

    return opened
