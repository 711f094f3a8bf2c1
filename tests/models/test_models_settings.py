"""Settings of the models: profiles, defaults and refusals."""

from dataclasses import replace

import pytest

from mmembed.errors import InputError
from mmembed.models.profiles import load_profile, profile_names
from mmembed.models.prompts import Kind
from mmembed.models.settings import (
    BackboneSettings,
    ChatPrompt,
    Clips,
    EmbedderSettings,
    LastToken,
    MeanToken,
    PoolerSettings,
    QwenVL,
    RawPrompt,
    RegionEncoderSettings,
    Sam2Regions,
    Sam2Scratch,
    TextRegions,
)
from mmembed.settings import dump_yaml, parse_yaml, read_settings


def test_every_profile_reads_as_settings():
    read = {name: load_profile(name).embedder for name in profile_names()}

    families = {name: type(settings.backbone).__name__ for name, settings in read.items()}
    assert families == {
        **dict.fromkeys(("chat", "gme", "lamra", "lamra_ret", "u_marvel", "unime_v2", "virtue"), "QwenVL"),
        **dict.fromkeys(("ops_mm", "qwen3_vl_embedding", "vlm2vec", "vlm2vec_v1"), "QwenVL"),
        **dict.fromkeys(
            ("bge_vl_mllm", "e5_v", "instructcir", "llave", "unime_onevision", "vlm2vec_llava_next"), "Llava"
        ),
        **dict.fromkeys(("unime_llava_next", "unime_v2_onevision"), "Llava"),
        **dict.fromkeys(("bge_vl", "clip", "lincir", "pic2word", "searle"), "DualEncoder"),
        "mme5": "Mllama",
        **dict.fromkeys(("unime_phi3_v", "vlm2vec_phi3_v"), "Phi3V"),
    }
    assert isinstance(read["chat"].prompt, ChatPrompt)
    assert isinstance(read["vlm2vec"].prompt, RawPrompt)
    assert read["vlm2vec"].backbone.positions == "sequential"
    assert read["vlm2vec"].backbone.media.sampling.num_frames == 8


@pytest.mark.parametrize("name", profile_names())
def test_every_profile_survives_an_embedder_yaml(name):
    settings = load_profile(name).embedder

    assert read_settings(EmbedderSettings, parse_yaml(dump_yaml(settings), "embedder.yaml")) == settings


def test_an_unknown_profile_is_refused_with_the_nearest_name():
    with pytest.raises(InputError, match="profile: expected a known profile, got 'chatt'; did you mean 'chat'"):
        load_profile("chatt")


def test_pixel_bounds_out_of_order_are_refused():
    with pytest.raises(InputError, match="max_pixels: expected at least min_pixels 10, got 9; raise it"):
        QwenVL(path="x", min_pixels=10, max_pixels=9)


def test_pixel_bounds_of_clips_are_checked_with_those_of_pictures():
    with pytest.raises(InputError, match="max_pixels: expected at least min_pixels 4000000, got 1003520; raise it"):
        QwenVL(path="x", clips=Clips(min_pixels=4_000_000))


def test_poolers_are_built_from_their_settings():
    assert type(LastToken().build(8, len)).__name__ == "LastTokenPooler"
    pooler = MeanToken(drop_on_query=(), drop_on_target=("instruction", "template")).build(8, len)
    assert (pooler.drop_on_query, pooler.drop_on_target) == ([], [Kind.INSTRUCTION, Kind.TEMPLATE])


def test_text_regions_count_in_a_thousand_steps_unless_told_otherwise():
    assert TextRegions().preparer().scale == 1000
    assert TextRegions(scale=8).preparer().scale == 8


def test_a_scale_without_steps_is_refused():
    with pytest.raises(InputError, match=r"regions\.scale: expected at least 1, got 0; 1000 is usual"):
        TextRegions(scale=0)


def test_settings_without_regions_read_as_before_and_those_with_them_read_back():
    backbone = {"class_path": "QwenVL", "init_args": {"path": "x"}}
    old = read_settings(EmbedderSettings, {"backbone": backbone})
    new = replace(old, regions=TextRegions(scale=8))

    assert old.regions is None
    assert read_settings(EmbedderSettings, parse_yaml(dump_yaml(new), "embedder.yaml")) == new


def test_abstract_settings_build_nothing():
    with pytest.raises(NotImplementedError):
        PoolerSettings().build(8, len)
    with pytest.raises(NotImplementedError):
        BackboneSettings().build()
    with pytest.raises(NotImplementedError):
        RegionEncoderSettings().preparer()


@pytest.mark.parametrize(("regions", "got"), [({}, "neither"), ({"checkpoint": "a", "scratch": Sam2Scratch()}, "both")])
def test_a_sam_is_opened_or_made_from_nothing_and_not_both(regions, got):
    with pytest.raises(InputError, match=f"regions: expected exactly one of checkpoint and scratch, got {got}"):
        Sam2Regions(**regions).preparer()
