"""Tiles and their tokens, against the library's own processors and packing."""

import dataclasses

import numpy as np
import PIL.Image
import pytest
import torch
import transformers
from hypothesis import example, given, settings
from hypothesis import strategies as st
from transformers import AutoConfig

from mmembed import Item
from mmembed.errors import InputError
from mmembed.models.backbones.llava.tiles import cut, make_processor, read_tiles
from mmembed.models.sequence import collate
from tests.cases import GOLDEN, draw
from tests.models.backbones.llava.small import small_llava

SIDES = st.integers(1, 3000)


def released(architecture):
    """The library's default config, which is that of the released checkpoints."""
    return AutoConfig.for_model(architecture)


def library_processor(architecture):
    """The library's processor with the facts of the released checkpoints."""
    config = released(architecture)
    tokenizer = small_llava("llava_onevision").backbone.checkpoint.tokenizer
    grid = {"image_grid_pinpoints": [list(size) for size in config.image_grid_pinpoints]}
    how = {"vision_feature_select_strategy": config.vision_feature_select_strategy}
    if architecture == "llava_next":
        how |= {"patch_size": 14, "num_additional_image_tokens": 1}
        return transformers.LlavaNextProcessor(transformers.LlavaNextImageProcessorPil(**grid), tokenizer, **how)
    images, clips = transformers.LlavaOnevisionImageProcessorPil(**grid), transformers.LlavaOnevisionVideoProcessor()
    return transformers.LlavaOnevisionProcessor(images, tokenizer, clips, num_image_tokens=27**2, **how)


@pytest.fixture(scope="module")
def processors():
    return {architecture: library_processor(architecture) for architecture in ("llava_next", "llava_onevision")}


@pytest.mark.parametrize("architecture", ["llava_next", "llava_onevision"])
def test_a_picture_of_any_size_has_as_many_tokens_as_the_librarys_processor_counts(architecture, processors):
    processor, tiles = processors[architecture], read_tiles(released(architecture))
    class_token = 1 if architecture == "llava_next" else 0

    @settings(max_examples=300, deadline=None, derandomize=True)
    @given(width=SIDES, height=SIDES)
    @example(width=6100, height=30)
    @example(width=1, height=3000)
    def equal(width, height):
        expected = processor._get_number_of_features(height, width, tiles.side, tiles.side) - class_token
        assert tiles.count(width, height) == expected

    equal()


@pytest.mark.parametrize("architecture", ["llava_next", "llava_onevision", "llava"])
def test_a_picture_of_any_size_has_as_many_tokens_as_features(architecture):
    embedder = small_llava(architecture)

    @settings(max_examples=25, deadline=None, derandomize=True)
    @given(width=st.integers(1, 200), height=st.integers(1, 200))
    @example(width=600, height=3)
    def equal(width, height):
        (row,) = embedder.prepare([Item.of({"image": draw(width, height)})], "query")
        with torch.no_grad():
            (features,) = embedder.backbone.vision(collate([row])).maps
        assert len(features) == int((row.kinds == 3).sum())
        assert len(row.media[0].pixels) == 1 + np.prod(row.media[0].grid[1:])

    equal()


def test_more_tiles_than_the_most_give_fewer_tokens_than_their_patches():
    tiles = read_tiles(small_llava("llava_onevision").backbone.model.config)

    assert tiles.grid(84, 84) == (3, 3)
    # nine tiles of 16 are shrunk by 1.5 to the worth of four
    assert tiles.count(84, 84) == 16 + 8 * 9
    assert dataclasses.replace(tiles, most=9).count(84, 84) == 16 + 12 * 13


@pytest.mark.parametrize("name", ["a224", "f300x20", "gray150x90", "h100x140", "pal96", "rgba90x120"])
def test_crops_equal_the_published_ones(name, open_instructcir):
    picture = PIL.Image.open(GOLDEN / f"vlm2vec/inputs/images/{name}.png")
    crop = PIL.Image.open(GOLDEN / f"cir/instructcir/crops/{name}.png")

    (row,) = open_instructcir().prepare([Item.of({"image": picture})], "query")

    (tile,) = row.media[0].pixels[:, :, 0]
    assert np.array_equal(tile.permute(1, 2, 0).numpy(), np.asarray(crop))


@pytest.mark.parametrize("architecture", ["llava_next", "llava_onevision", "llava"])
@pytest.mark.parametrize("size", [(100, 140), (333, 21), (64, 90)])
def test_torchvision_resize_equals_the_librarys_processor(architecture, size):
    embedder = small_llava(architecture, resize="torchvision")
    backbone, picture = embedder.backbone, draw(*size)
    facts = backbone.checkpoint.preprocessing
    grid = {} if architecture == "llava" else {"image_grid_pinpoints": backbone.model.config.image_grid_pinpoints}
    library = getattr(transformers, facts["image_processor_type"]).from_dict(facts | grid)

    (row,) = embedder.prepare([Item.of({"image": picture})], "query")
    ours = (row.media[0].pixels[:, :, 0] / 255 - backbone.mean[:, 0]) / backbone.std[:, 0]

    theirs = library([picture], return_tensors="pt")["pixel_values"].reshape(ours.shape)
    assert torch.allclose(ours, theirs, atol=1e-5, rtol=0)


def test_a_processor_for_other_tiles_is_refused():
    tiles = read_tiles(small_llava("llava").backbone.model.config)

    with pytest.raises(InputError, match=r"preprocessor_config\.json: expected tiles of 28 x 28, .*got 224 x 224"):
        make_processor("CLIPImageProcessor", {}, tiles, "pil")


def test_a_tower_of_another_kind_is_refused():
    config = AutoConfig.for_model("llava", vision_config={"model_type": "pixtral"})

    with pytest.raises(InputError, match=r"vision_config\.model_type: expected one of clip_vision_model, .*'pixtral'"):
        read_tiles(config)


def test_tiles_stay_bytes():
    tiles = read_tiles(small_llava("llava_next").backbone.model.config)
    facts = small_llava("llava_next").backbone.checkpoint.preprocessing

    pixels = cut(make_processor("LlavaNextImageProcessor", facts, tiles, "pil"), [draw(50, 50)])

    assert pixels.dtype == torch.uint8
    assert pixels.shape == (5, 3, 1, 28, 28)
