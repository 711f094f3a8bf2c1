"""Every embedding that the published code of Qwen3-VL-Embedding, Ops-MM, GME and U-MARVEL's 4B was seen to compute."""

import json
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from tokenizers.processors import TemplateProcessing

from mmembed import Embedder, Image, Item, Video
from mmembed.models.profiles import load_released
from tests.cases import GOLDEN

INPUTS = GOLDEN / "vlm2vec/inputs"
SEEN = {
    "qwen3_vl/qwen3_vl_embedding": ("Qwen/Qwen3-VL-Embedding-2B", "qwen3_vl/ckpt"),
    "qwen3_vl/u_marvel": ("TencentBAC/U-MARVEL-Qwen3VL-4B-Instruct", "qwen3_vl/ckpt"),
    "gme/golden": ("Alibaba-NLP/gme-Qwen2-VL-2B-Instruct", "vlm2vec/qwen2_vl"),
    "ops_mm/golden": ("OpenSearch-AI/Ops-MM-embedding-v1-2B", "vlm2vec/qwen2_vl"),
}
CASES = {file: json.loads((GOLDEN / f"{file}.json").read_text()) for file in SEEN}


@cache
def model_of(file, total_pixels=None):
    """The checkpoint by its profile; ``total_pixels`` bounds all frames of a clip otherwise."""
    name, checkpoint = SEEN[file]
    clips = load_released(name)[1].backbone.clips
    changes = {} if total_pixels is None else {"clips": vars(replace(clips, total_pixels=total_pixels))}
    return Embedder.from_pretrained(GOLDEN / checkpoint, profile=name, device="cpu", **changes)


def item_of(case):
    clip = [Video(tuple(INPUTS / frame for frame in case["frames"]))] if "frames" in case else []
    pictures = [Image(INPUTS / file) for file in case.get("images", [])]
    words = [case["text"]] if "text" in case else []
    return Item((*clip, *pictures, *words), case.get("instruction"), verbatim=False)


@pytest.mark.parametrize(("file", "name"), [(file, name) for file, cases in CASES.items() for name in cases])
def test_a_released_model_reads_the_same_tokens_and_gives_the_same_embedding(file, name, sped):
    case = CASES[file][name]
    model, item = sped(model_of(file, case.get("total_pixels"))), item_of(case)
    side = "target" if item.instruction is None else "query"

    (row,) = model.prepare([item], side)

    grids = [medium.grid for medium in row.media]
    if "frames" in case and file.startswith("ops_mm"):
        (time, *sides), *others = grids
        grids = [(1, *sides)] * time + others
    assert grids == [tuple(grid) for grid in case["grids"]]
    with np.load(GOLDEN / f"{file}.npz") as arrays:
        assert row.ids.tolist() == arrays[f"{name}/input_ids"].tolist()
        assert np.abs(model.encode([item], side=side).numpy()[0] - arrays[f"{name}/emb"]).max() <= 2e-6


def test_all_cases_are_found():
    assert {file: len(cases) for file, cases in CASES.items()} == {
        "qwen3_vl/qwen3_vl_embedding": 20, "qwen3_vl/u_marvel": 12, "gme/golden": 14, "ops_mm/golden": 18,
    }  # fmt: skip


def test_an_end_token_that_the_checkpoints_tokenizer_writes_is_the_one_that_is_pooled():
    """Its report has one and its code leaves it to the tokenizer."""
    model = Embedder.from_pretrained(GOLDEN / "qwen3_vl/ckpt", profile="Qwen/Qwen3-VL-Embedding-2B", device="cpu")
    tokenizer = model.backbone.preprocessor.tokenizer
    (before,) = model.prepare([Item.of("a red dress")], "target")
    end = ("<|endoftext|>", tokenizer.convert_tokens_to_ids("<|endoftext|>"))
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(["$A", end[0]], special_tokens=[end])

    whole, cut = model.prepare([Item.of("a red dress"), Item.of("a red dress " * 9000)], "target")

    assert whole.ids.tolist() == [*before.ids.tolist(), end[1]]
    assert len(cut.ids) == 8192
    assert cut.ids.tolist()[-4:] == whole.ids.tolist()[-4:]
