"""Every embedding that the published VLM2Vec code was seen to compute on LLaVA-NeXT, computed again."""

import json
import re

import numpy as np
import pytest
import torch

from mmembed.errors import InputError
from mmembed.models.adapters import add_lora, rename
from mmembed.models.backbones.llava.backbone import LLAVA
from mmembed.models.settings import Lora
from tests.cases import GOLDEN, golden_item
from tests.models.backbones.llava.small import make_llava

PUBLISHED = GOLDEN / "vlm2vec/golden/llava_next"
CASES = json.loads((PUBLISHED / "golden.json").read_text())
TOO_SHORT = "img_max_len_too_small"
RUNNABLE = [name for name, record in CASES.items() if "error" not in record and name != TOO_SHORT]
STOPPED = [name for name, record in CASES.items() if "error" in record]


def items_of(name):
    case = CASES[name]["case"]
    return [golden_item(text, paths) for text, paths in zip(case["texts"], case["images"], strict=True)]


def settings_of(name):
    case = CASES[name]["case"]
    names = {"padding_side": "padding_side", "max_len": "max_length"}
    return {ours: case[theirs] for theirs, ours in names.items() if theirs in case}


def test_all_published_cases_are_found():
    assert len(RUNNABLE) == 9
    assert len(STOPPED) == 4


@pytest.mark.parametrize("name", RUNNABLE)
def test_embeddings_equal_the_published_ones(name, open_llava_next, sped):
    ours = sped(open_llava_next(**settings_of(name))).encode(items_of(name)).numpy()

    with np.load(PUBLISHED / "golden.npz") as arrays:
        assert np.abs(ours - arrays[f"{name}/emb"]).max() <= 2e-6


@pytest.mark.parametrize("name", RUNNABLE)
def test_tokens_equal_the_published_ones(name, open_llava_next):
    rows = open_llava_next(**settings_of(name)).prepare(items_of(name), "query")

    with np.load(PUBLISHED / "golden.npz") as arrays:
        ids, mask = arrays[f"{name}/input_ids"], arrays[f"{name}/attention_mask"]
    assert [row.ids.tolist() for row in rows] == [
        line[real == 1].tolist() for line, real in zip(ids, mask, strict=True)
    ]


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", STOPPED)
def test_batches_that_stop_the_published_code_embed_each_row_as_alone(name, side, open_llava_next):
    embedder = open_llava_next(**(settings_of(name) | {"padding_side": side}))
    items = items_of(name)

    together = embedder.encode(items, batch_tokens=10**6)

    alone = torch.cat([embedder.encode([item]) for item in items])
    assert torch.allclose(together, alone, atol=2e-6, rtol=0)
    assert torch.pdist(alone).min() > 1e-3


def test_media_longer_than_max_length_are_refused_in_words(open_llava_next):
    message = r"item 0: item: expected media and regions within max_length 64, got 172 tokens.*or give fewer pictures"

    with pytest.raises(InputError, match=message):
        open_llava_next(max_length=64).encode(items_of(TOO_SHORT))


def test_the_usual_adapter_sits_where_the_published_one_does():
    model = make_llava("llava_next").backbone.model
    add_lora(model, Lora())

    adapted = {re.sub(r"\.lora_A\..*", "", name) for name, _ in model.named_parameters() if ".lora_A." in name}
    published = json.loads((GOLDEN / "vlm2vec/golden/train/lora_targets.json").read_text())["llava_next"]
    expected = {rename(name, LLAVA.renames) for name in published}
    assert {re.sub(r"layers\.\d+", "layers.N", name) for name in adapted} == expected
