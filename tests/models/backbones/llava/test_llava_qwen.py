"""Checkpoints of the LLaVA-NeXT code: their translation, their tiles, and transformers' model of the same weights."""

import json
import math

import numpy as np
import PIL.Image
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from transformers import LlavaOnevisionConfig, LlavaOnevisionModel

from mmembed import Embedder, Item, Video
from mmembed.errors import InputError
from mmembed.media.settings import AllFrames, MediaSettings
from mmembed.models.backbones.llava.llava_qwen import translate
from mmembed.models.backbones.llava.tiles import read_tiles
from mmembed.models.settings import EmbedderSettings, Llava, RawPrompt
from tests.cases import draw
from tests.models.backbones.llava.released_layout import SAID, SIDE, write_llava_qwen

GRIDS = [(columns * SIDE, rows * SIDE) for columns in (1, 2, 3) for rows in (1, 2, 3)]
SIZES = [(84, 56), (56, 84), (150, 20), (64, 64), (17, 90), (28, 28), (3, 3), (200, 199)]
FRAMES = tuple(draw(56, 84, seed) for seed in range(3))
ITEMS = [
    Item.of("a red circle"),
    *(Item.of({"image": draw(*size), "text": "the same, but blue"}) for size in SIZES),
    Item.of({"video": Video(FRAMES), "text": "describe the clip"}),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("llava_qwen") / "checkpoint"


@pytest.fixture(scope="module")
def library(folder):
    return write_llava_qwen(folder)


def opened(folder):
    backbone = Llava(path=str(folder), media=MediaSettings(sampling=AllFrames()))
    return Embedder(EmbedderSettings(backbone, RawPrompt())).eval()


def cut_as_llava_next(picture):
    """The whole picture squashed to a tile, then the tiles of the grid on which most of it is seen and least wasted."""
    width, height = picture.size

    def seen(size):
        scale = min(size[0] / width, size[1] / height)
        pixels = min(int(width * scale) * int(height * scale), width * height)
        return pixels, pixels - size[0] * size[1]

    wide, high = max(GRIDS, key=seen)
    by_width, by_height = wide / width, high / height
    if by_width < by_height:
        inner = (wide, min(math.ceil(height * by_width), high))
    else:
        inner = (min(math.ceil(width * by_height), wide), high)
    canvas = PIL.Image.new("RGB", (wide, high))
    canvas.paste(picture.resize(inner), ((wide - inner[0]) // 2, (high - inner[1]) // 2))
    places = [(x, y, x + SIDE, y + SIDE) for y in range(0, high, SIDE) for x in range(0, wide, SIDE)]
    return [picture.resize((SIDE, SIDE)), *(canvas.crop(place) for place in places)]


def as_tensor(pictures):
    return torch.stack([torch.from_numpy(np.array(picture)).permute(2, 0, 1) for picture in pictures])


@torch.no_grad()
def by_library(library, row, item):
    """The unit vector of transformers' model, given our tokens and tiles cut by ourselves."""
    media = {}
    for medium in item.media:
        pictures = list(medium.source) if isinstance(medium, Video) else [medium.source]
        if isinstance(medium, Video):
            tiles, name = [picture.resize((SIDE, SIDE), PIL.Image.BICUBIC) for picture in pictures], "_videos"
        else:
            tiles, name = cut_as_llava_next(*pictures), ""
            media["image_sizes"] = torch.tensor([pictures[0].size[::-1]])
        media[f"pixel_values{name}"] = ((as_tensor(tiles) / 255 - 0.5) / 0.5)[None]
    states = library(input_ids=row.ids[None], **media).last_hidden_state
    return F.normalize(states[0, -1], dim=-1)


def test_weights_become_transformers_own(folder, library):
    model = opened(folder).backbone.model

    assert isinstance(model, LlavaOnevisionModel)
    wanted = library.state_dict()
    assert model.state_dict().keys() == wanted.keys()
    assert all(torch.equal(value, wanted[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("size", SIZES)
def test_a_picture_is_cut_as_the_llava_next_code_cuts_it(size, folder, library):
    (row,) = opened(folder).prepare([Item.of({"image": draw(*size)})], "query")

    assert torch.equal(row.media[0].pixels[:, :, 0], as_tensor(cut_as_llava_next(draw(*size))))


def test_items_embed_as_transformers_model_of_the_same_weights(folder, library):
    embedder = opened(folder)

    rows = embedder.prepare(ITEMS, "query")
    theirs = torch.stack([by_library(library, row, item) for row, item in zip(rows, ITEMS, strict=True)])

    assert torch.allclose(embedder.encode(ITEMS), theirs, atol=1e-5, rtol=0)
    assert torch.pdist(theirs).min() > 1e-3


@pytest.mark.parametrize("sizes", ["(1x1),...,(3x3)", str([list(grid) for grid in GRIDS])])
def test_sizes_may_be_said_as_a_string(sizes, folder, library, tmp_path):
    write_llava_qwen(tmp_path / "said", image_grid_pinpoints=sizes)

    assert torch.equal(opened(tmp_path / "said").encode(ITEMS), opened(folder).encode(ITEMS))


def test_a_table_without_rows_for_media_gets_them(folder, library, tmp_path):
    write_llava_qwen(tmp_path / "tight", spare_rows=0)
    weights = load_file(tmp_path / "tight/model.safetensors")
    table = load_file(folder / "model.safetensors")["model.embed_tokens.weight"]
    weights["model.embed_tokens.weight"] = table[: len(weights["model.embed_tokens.weight"])].contiguous()
    rest = {name: value for name, value in load_file(folder / "model.safetensors").items() if "embed" not in name}
    rest["lm_head.weight"] = weights["lm_head.weight"]
    save_file(weights | rest, tmp_path / "tight/model.safetensors", {"format": "pt"})

    assert torch.equal(opened(tmp_path / "tight").encode(ITEMS), opened(folder).encode(ITEMS))


def test_what_is_saved_is_transformers_own_layout(folder, library, tmp_path):
    embedder = opened(folder)

    embedder.save(tmp_path / "saved")

    assert json.loads((tmp_path / "saved/config.json").read_text())["model_type"] == "llava_onevision"
    again = Embedder.from_pretrained(tmp_path / "saved", device="cpu")
    assert torch.equal(again.encode(ITEMS), embedder.encode(ITEMS))


def test_the_published_tower_is_known_by_its_name():
    said = SAID | {"mm_vision_tower": "google/siglip-so400m-patch14-384", "image_grid_pinpoints": "(1x1),...,(6x6)"}
    text = {"vocab_size": 9, "hidden_size": 8, "num_attention_heads": 2, "num_key_value_heads": 2}

    config = translate("x", said | text | {"image_aspect_ratio": "anyres_max_9"}, {}, (7, 8))

    usual, tower = LlavaOnevisionConfig(), config.vision_config
    tiles, published = read_tiles(config), read_tiles(usual)
    # heights and widths here, widths and heights there
    assert set(tiles.sizes) == set(published.sizes)
    assert (tiles.tokens, tiles.most, tiles.side) == (published.tokens, published.most, published.side) == (729, 9, 384)
    assert (tower.num_hidden_layers, tower.hidden_size) == (26, usual.vision_config.hidden_size)


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ({"mm_patch_merge_type": "flat"}, "mm_patch_merge_type: expected spatial_unpad, got flat"),
        ({"mm_spatial_pool_mode": "average"}, "mm_spatial_pool_mode: expected bilinear, got average"),
        ({"image_aspect_ratio": "pad"}, "image_aspect_ratio: expected anyres_max_ and a number, got pad"),
        ({"image_grid_pinpoints": None}, "image_grid_pinpoints: expected widths and heights, got None"),
        ({"image_grid_pinpoints": "1x1 to 6x6"}, "image_grid_pinpoints: expected widths and heights, got 1x1 to 6x6"),
        ({"image_grid_pinpoints": [384]}, "image_grid_pinpoints: expected widths and heights, got "),
    ],
)
def test_what_llava_onevision_does_not_do_is_refused(said, problem, tmp_path):
    write_llava_qwen(tmp_path / "other", **said)

    with pytest.raises(InputError, match=problem):
        opened(tmp_path / "other")


def test_another_tower_is_refused(tmp_path):
    write_llava_qwen(tmp_path / "other")
    (tmp_path / "other_tower/config.json").write_text('{"model_type": "clip"}')

    with pytest.raises(InputError, match=r"mm_vision_tower: expected google/siglip-so400m-patch14-384, or a folder"):
        opened(tmp_path / "other")
