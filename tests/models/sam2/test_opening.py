"""A SAM 2 is opened from either layout with every weight, or refused in words."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Sam2Config, Sam2Model, Sam2VideoConfig, Sam2VideoModel

from mmembed.errors import InputError
from mmembed.models.sam2.keys import native_weights
from mmembed.models.sam2.opening import open_sam, sam_side, scratch_sam
from mmembed.models.sam2.sizes import config_of
from mmembed.models.settings.regions import Sam2Scratch
from tests.cases import GOLDEN

TINY = GOLDEN / "virtue/sam2_tiny"
# SAM 2's own configs: width, blocks of each stage, heads, blocks with global attention, windows, background
RELEASED = {
    "tiny": (96, [1, 2, 7, 2], [1, 2, 4, 8], [5, 7, 9], [8, 4, 14, 7], [7, 7]),
    "small": (96, [1, 2, 11, 2], [1, 2, 4, 8], [7, 10, 13], [8, 4, 14, 7], [7, 7]),
    "base_plus": (112, [2, 3, 16, 3], [2, 4, 8, 16], [12, 16, 20], [8, 4, 14, 7], [14, 14]),
    "large": (144, [2, 6, 36, 4], [2, 4, 8, 16], [23, 33, 43], [8, 4, 16, 8], [7, 7]),
}


@pytest.fixture
def original():
    return load_file(TINY / "original/model.safetensors")


@pytest.fixture
def released(tmp_path, original):
    """A file as SAM 2 is released, and the config of its unusual size beside it."""
    torch.save({"model": original}, tmp_path / "sam.pt")
    shutil.copy(TINY / "native/config.json", tmp_path / "config.json")
    return tmp_path / "sam.pt"


def test_every_weight_of_transformers_model_is_found_under_the_original_names(original):
    native = load_file(TINY / "native/model.safetensors")

    ours = native_weights(original, "sam.pt")

    assert len(native) == 249
    assert set(ours) == set(native)
    assert all(torch.equal(ours[name], native[name]) for name in native)


@pytest.mark.parametrize("layout", ["pt", "safetensors"])
def test_a_file_in_the_original_layout_and_a_directory_of_transformers_are_the_same_model(layout, released, original):
    path = released
    if layout == "safetensors":
        path = released.with_suffix(".safetensors")
        save_file(original, path)

    ours, theirs = (open_sam(str(place)).model.state_dict() for place in (path, TINY / "native"))

    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert sam_side(str(path)) == sam_side(str(TINY / "native")) == 1024


@pytest.mark.parametrize("name", RELEASED)
def test_a_released_size_is_told_by_its_weights(name):
    width, blocks, heads, everywhere, windows, background = RELEASED[name]
    widths = [width * 2**stage for stage in range(4)]
    hiera = {
        "model_type": "sam2_hiera_det_model", "hidden_size": width, "num_attention_heads": heads[0],
        "blocks_per_stage": blocks, "embed_dim_per_stage": widths, "num_attention_heads_per_stage": heads,
        "window_size_per_stage": windows, "global_attention_blocks": everywhere,
        "window_positional_embedding_background_size": background,
    }  # fmt: skip
    config = Sam2Config(vision_config={"backbone_config": hiera, "backbone_channel_list": widths[::-1]})
    with torch.device("meta"):
        weights = Sam2Model(config).state_dict()

    assert config_of(weights, "sam.pt").to_dict() == config.to_dict()
    if name == "base_plus":
        assert sum(w.numel() for key, w in weights.items() if "positional_embedding" not in key) == 73_328_401


def test_a_file_of_another_size_asks_for_a_config(tmp_path, original):
    torch.save({"model": original}, tmp_path / "sam.pt")

    with pytest.raises(InputError, match=r"expected a SAM 2 of a released size.* width 8 and 7 blocks; put the"):
        open_sam(str(tmp_path / "sam.pt"))


def test_the_model_for_clips_which_the_hub_has_is_opened_as_the_one_for_pictures(tmp_path):
    small = scratch_sam(Sam2Scratch()).model.config
    config = Sam2VideoConfig(
        vision_config=small.vision_config.to_dict() | {"fpn_hidden_size": 256},
        prompt_encoder_config={"image_size": 256},
        image_size=256,
    )
    whole = Sam2VideoModel(config)
    whole.save_pretrained(tmp_path)
    weights = open_sam(str(tmp_path)).model.state_dict()

    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "sam2_video"
    assert all(torch.equal(value, whole.state_dict()[name]) for name, value in weights.items())
    assert sam_side(str(tmp_path)) == 256


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_encoder.trunk.head.weight": torch.zeros(1)}, "1 unexpected: image_encoder.trunk.head.weight; use a"),
        ({"sam_mask_decoder.iou_token.weight": None}, "1 missing: mask_decoder.iou_token.weight; use an intact copy"),
        ({"sam_prompt_encoder.point_embeddings.2.weight": None}, "1 missing: prompt_encoder.point_embed.weight"),
        ({"no_mem_embed": torch.zeros(1, 1, 3)}, "1 of another shape: no_memory_embedding"),
    ],
)
def test_weights_that_are_not_exactly_a_sam_are_listed(change, message, released, original):
    changed = {name: value for name, value in (original | change).items() if value is not None}
    torch.save({"model": changed}, released)

    with pytest.raises(InputError, match=message):
        open_sam(str(released))


class Evil:
    """What a pickle could bring along."""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"state": {}}, "a dict with the weights under 'model', got a dict of state"),
        ({"model": {"a": 1}}, "a dict with the weights under 'model'"),
        ({"model": Evil()}, "a released .pt or .safetensors file, got no whole file of torch's, or objects besides"),
    ],
)
def test_a_file_that_holds_something_else_is_refused(content, message, tmp_path):
    torch.save(content, tmp_path / "sam.pt")

    with pytest.raises(InputError, match=message):
        open_sam(str(tmp_path / "sam.pt"))


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_a_file_cut_short_is_refused(suffix, tmp_path):
    path = tmp_path / f"sam.{suffix}"
    path.write_bytes(b"PK\x03\x04 not a whole file")

    with pytest.raises(InputError, match=f"sam.{suffix}: expected"):
        open_sam(str(path))


def test_another_models_directory_is_refused():
    other = GOLDEN / "vlm2vec/qwen2_vl"

    for open_it in (open_sam, sam_side):
        with pytest.raises(InputError, match=r"config\.json: expected model_type sam2 or sam2_video, got 'qwen2_vl'"):
            open_it(str(other))


def test_a_place_with_nothing_is_refused(tmp_path):
    for path in (str(tmp_path), str(tmp_path / "none")):
        with pytest.raises(InputError, match=r"facebook/sam2\.1-hiera-base-plus is usual"):
            open_sam(path)


@pytest.mark.parametrize("side", [0, 100, 255])
def test_a_side_that_is_not_whole_tokens_is_refused(side):
    with pytest.raises(InputError, match=f"regions.scratch.image_size: expected a multiple of 64 pixels, got {side}"):
        scratch_sam(Sam2Scratch(image_size=side))


def test_unknown_fields_of_a_scratch_image_encoder_are_refused():
    with pytest.raises(
        InputError, match=r"regions\.scratch\.vision: expected fields of transformers' Sam2HieraDetConfig"
    ):
        scratch_sam(Sam2Scratch(vision={"hidden_size": "wide"}))
