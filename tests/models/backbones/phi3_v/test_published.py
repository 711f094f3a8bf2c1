"""Every embedding that the published VLM2Vec code was seen to compute with Phi-3.5-vision, computed again."""

import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

from mmembed.errors import InputError
from mmembed.models.backbones.phi3_v.pixels import cut, fit, whole_view
from mmembed.models.checkpoint import CLIP_MEAN, CLIP_STD
from mmembed.models.prompts import Kind
from mmembed.models.sequence import collate
from tests.cases import GOLDEN, golden_item

PUBLISHED = Path(__file__).parents[3] / "golden/vlm2vec/golden/phi3_v"
CASES = json.loads((PUBLISHED / "golden.json").read_text())
PICTURES = [(name, i) for name, record in CASES.items() for i, path in enumerate(record["case"]["images"]) if path]


def published(name, array="emb"):
    with np.load(PUBLISHED / "golden.npz") as arrays:
        return arrays[f"{name}/{array}"]


@pytest.fixture
def prepare_case(open_published):
    def prepare(name, **overrides):
        """The rows of a case; the published code cuts rows of text at ``max_len`` and no row with a picture."""
        case = CASES[name]["case"]
        overrides = {key: case[key] for key in ("num_crops", "padding_side") if key in case} | overrides
        whole = open_published(**overrides)
        rows = []
        for text, paths in zip(case["texts"], case["images"], strict=True):
            shortened = {} if paths else {"max_length": case.get("max_len")}
            rows += open_published(**overrides, **shortened).prepare([golden_item(text, paths)], "query")
        return whole, rows

    return prepare


@pytest.fixture
def embed_case(prepare_case):
    @torch.no_grad()
    def embed(name, **overrides):
        embedder, rows = prepare_case(name, **overrides)
        # in one batch, as the published code had it: its length decides the rotary frequencies of every row
        return embedder(collate(rows)).numpy()

    return embed


def test_all_published_cases_are_found():
    assert len(CASES) == 13
    assert not any("error" in record for record in CASES.values())
    assert len(PICTURES) == 15


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_embeddings_equal_the_published_ones(name, prepare_case, sped):
    embedder, rows = prepare_case(name, longrope_by="batch")

    ours = sped(embedder)(collate(rows)).numpy()

    assert np.abs(ours - published(name)).max() <= 2e-6


@pytest.mark.parametrize("name", CASES)
def test_tokens_equal_the_published_ones(name, prepare_case):
    _, rows = prepare_case(name)

    ids, mask = published(name, "input_ids"), published(name, "attention_mask")
    for row, theirs, real in zip(rows, ids, mask, strict=True):
        ours = row.ids.where(row.kinds != Kind.IMAGE, -1)
        assert ours.tolist() == theirs[real == 1].tolist()


@pytest.mark.parametrize(("name", "i"), PICTURES)
def test_tiles_and_whole_views_equal_the_published_ones(name, i):
    case = CASES[name]["case"]
    picture = PIL.Image.open(GOLDEN / "vlm2vec/inputs" / case["images"][i][0]).convert("RGB")
    mean, std = (torch.tensor(values)[:, None, None] for values in (CLIP_MEAN, CLIP_STD))

    pixels, (_, rows, columns) = cut(fit(picture, case["num_crops"], 336, "pil"), 336)
    tiles = (pixels[:, :, 0] / 255 - mean) / std
    ours = torch.cat([whole_view(tiles, rows, columns)[None], tiles])

    theirs = published(name, f"pixel_values.{i}.rows")
    height, width = CASES[name]["image_sizes"][i][0]
    assert (rows * 336, columns * 336) == (height, width)
    assert np.abs(ours[:, 0, ::97, ::97].numpy() - theirs[: len(ours)]).max() <= 1e-6
    # the published code fills up with tiles of zeros
    assert not theirs[len(ours) :].any()


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_padding_side_does_not_move_an_embedding(side, embed_case):
    ours = embed_case("mixed_text_image", longrope_by="batch", padding_side=side)

    assert np.abs(ours - published("mixed_text_image")).max() <= 2e-6


def test_a_picture_longer_than_max_length_is_refused_where_the_published_code_ignores_the_limit(open_published):
    case = CASES["img_max_len_too_small"]["case"]
    item = golden_item(case["texts"][0], case["images"][0])
    message = r"item 0: item: expected media and regions within max_length 64, got 762 tokens.*or lower num_crops"

    with pytest.raises(InputError, match=message):
        open_published(num_crops=4, max_length=case["max_len"]).encode([item])


def test_a_row_alone_decides_its_rotary_frequencies(open_published, embed_case):
    texts = [CASES["mixed_text_image"]["case"]["texts"][i] for i in (0, 2)]
    alone = torch.cat([open_published().encode(text) for text in texts]).numpy()

    by_row, by_batch = (embed_case("mixed_text_image", longrope_by=choice)[[0, 2]] for choice in ("row", "batch"))

    assert np.abs(by_row - alone).max() <= 1e-5
    assert np.abs(alone[0] - published("text_single")[0]).max() <= 2e-6
    assert np.abs(by_batch - alone).max() > 1e-2


def test_rows_are_told_apart_by_the_length_that_the_config_says(open_published):
    lengths = torch.tensor([512, 513, 3])

    by_row, by_batch = (open_published(longrope_by=choice).backbone.groups(lengths) for choice in ("row", "batch"))

    assert [rows.tolist() for rows in by_row] == [[True, False, True], [False, True, False]]
    assert [rows.tolist() for rows in by_batch] == [[True, True, True]]
