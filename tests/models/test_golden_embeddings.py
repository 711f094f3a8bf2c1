"""Every embedding that the published VLM2Vec code was seen to compute, computed again."""

import json
from pathlib import Path

import numpy as np
import PIL
import pytest
from packaging.version import Version

from mmembed import Item
from mmembed.errors import InputError
from mmembed.models.prompts import render
from mmembed.models.settings import RawPrompt

PUBLISHED = Path(__file__).parents[1] / "golden/vlm2vec/golden"
CASES = {
    (family, name): record
    for family in ("qwen2_vl", "qwen2_5_vl")
    for name, record in json.loads((PUBLISHED / family / "golden.json").read_text()).items()
}
RUNNABLE = [key for key, record in CASES.items() if "error" not in record]
PROMPTS = {key: prompt for key, prompt in json.loads((PUBLISHED / "prompts.json").read_text()).items() if "qwen" in key}
WORDS = {"image": "<|image_pad|>", "video": "<|video_pad|>"}
OVERRIDES = {name: name for name in ("min_pixels", "max_pixels", "padding_side")} | {"max_len": "max_length"}


def overrides_of(case):
    return {ours: case[theirs] for theirs, ours in OVERRIDES.items() if theirs in case}


@pytest.fixture
def encode_case(open_golden, golden_item):
    def encode(family, name, **overrides):
        case = CASES[family, name]["case"]
        items = [golden_item(text, paths) for text, paths in zip(case["texts"], case["images"], strict=True)]
        return open_golden(family, **(overrides_of(case) | overrides)).encode(items).numpy()

    return encode


def published(family, name):
    with np.load(PUBLISHED / family / "golden.npz") as arrays:
        return arrays[f"{name}/emb"]


def test_all_published_cases_are_found():
    assert len(CASES) == 40
    assert len(RUNNABLE) == 37
    assert len(PROMPTS) == 10


@pytest.mark.parametrize(("family", "name"), RUNNABLE)
def test_embeddings_equal_the_published_ones(family, name, encode_case):
    if name == "video_mixed_frame_sizes" and Version(PIL.__version__) < Version("13"):
        pytest.skip("Pillow before 13 rounds otherwise where a picture grows one way and shrinks the other")
    assert np.abs(encode_case(family, name) - published(family, name)).max() <= 2e-6


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_5_vl"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_the_padding_side_does_not_move_an_embedding(family, side, encode_case):
    ours = encode_case(family, "mixed_text_image", padding_side=side)

    assert np.abs(ours - published(family, "mixed_text_image")).max() <= 2e-6


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_5_vl"])
def test_media_longer_than_max_length_are_refused_in_words(family, encode_case):
    message = r"item 0: item: expected media and regions within max_length 64, got 396 tokens.*or lower max_pixels"

    with pytest.raises(InputError, match=message):
        encode_case(family, "img_max_len_too_small")


def test_frames_of_different_sizes_are_embedded_where_the_published_code_stops(encode_case):
    ours = encode_case("qwen2_vl", "video_mixed_frame_sizes")

    assert "error" in CASES["qwen2_vl", "video_mixed_frame_sizes"]
    assert np.linalg.norm(ours, axis=1) == pytest.approx([1.0], abs=1e-6)


@pytest.mark.parametrize("key", PROMPTS)
def test_raw_prompts_equal_the_published_strings(key):
    _, instruction, text, video, image = key.split("|")
    medium = {"video": {"video": "v.mp4"}, "image": {"image": "i.png"}}
    has = next((name for name, flag in (("video", video), ("image", image)) if flag.endswith("=True")), None)
    item = Item.of(({"text": text} if text != "None" else {}) | medium.get(has, {}), instruction)

    segments = render(item, RawPrompt(), [WORDS[has]] if has else [])

    assert "".join(segment.text for segment in segments) == PROMPTS[key]


@pytest.mark.parametrize(("side", "array"), [("query", "q_emb"), ("positives", "p_emb")])
def test_an_adapter_saved_under_old_names_embeds_as_published(side, array, golden, golden_item, open_golden, sped):
    pairs = json.loads((PUBLISHED / "train/single_lora.json").read_text())["pairs"]
    items = [golden_item(*(pair[:2] if side == "query" else pair[2:])) for pair in pairs]
    model = sped(open_golden("qwen2_vl", adapter=str(golden / "vlm2vec/qwen2_vl_lora")))

    with np.load(PUBLISHED / "train/single_lora.npz") as arrays:
        assert np.abs(model.encode(items).numpy() - arrays[array]).max() <= 2e-6
