"""What from_pretrained opens: rows by Hub id, copies, adapters and bases; and what a checkpoint contradicts."""

import json
import shutil
from dataclasses import replace

import pytest
import torch

from mmembed import Embedder
from mmembed.errors import InputError
from mmembed.models.profiles import Released, load_profile, load_released, merged
from mmembed.models.resolve import Asked, resolve
from tests.models.backbones.dual_encoder.transformers_layout import write_clip
from tests.models.profiles.released import publish, put, scratch_of

ADAPTED, BASE = "VLM2Vec/VLM2Vec-V2.0", "Qwen/Qwen2-VL-2B-Instruct"
ITEMS = ["a red dress", {"text": "blue", "instruction": "Find it."}]


@pytest.fixture
def published(hub_cache, tmp_path):
    publish(hub_cache, ADAPTED, tmp_path / "made")
    return tmp_path / "made"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A small Qwen2-VL as its authors lay it out."""
    folder = tmp_path_factory.mktemp("whole") / "copy"
    scratch_of(Released("qwen2_vl"), load_profile("vlm2vec").embedder).save(folder)
    (folder / "embedder.yaml").unlink()
    return folder


def says(folder, name, **values):
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(values))


def test_an_adapter_opens_on_the_base_of_its_row(published):
    by_name = Embedder.from_pretrained(ADAPTED)
    by_both = Embedder.from_pretrained(BASE, adapter=ADAPTED, profile="vlm2vec")

    assert by_name.has_adapter
    assert (by_name.settings.backbone.path, by_name.settings.backbone.adapter) == (BASE, ADAPTED)
    assert torch.equal(by_name.encode(ITEMS), by_both.encode(ITEMS))


def test_a_known_adapter_on_a_base_needs_no_profile(published):
    model = Embedder.from_pretrained(str(published / "whole"), adapter=ADAPTED)

    assert model.settings == replace(
        load_released(ADAPTED)[1],
        backbone=replace(model.settings.backbone, path=str(published / "whole"), adapter=ADAPTED),
    )


def test_a_copy_opens_by_the_name_of_what_it_is_a_copy_of(published):
    copy = published / "adapted/adapter"

    assert torch.equal(
        Embedder.from_pretrained(copy, profile=ADAPTED).encode(ITEMS), Embedder.from_pretrained(ADAPTED).encode(ITEMS)
    )


def test_an_adapter_without_a_row_opens_on_the_base_that_it_names(published, hub_cache):
    put(hub_cache, "someone/adapter", published / "adapted/adapter")

    model = Embedder.from_pretrained("someone/adapter", profile="vlm2vec")

    assert (model.settings.backbone.path, model.settings.backbone.adapter) == (BASE, "someone/adapter")


def test_a_profile_that_is_named_decides_how_a_known_checkpoint_embeds(published):
    model = Embedder.from_pretrained(ADAPTED, profile="vlm2vec_v1")

    assert model.settings.backbone.media.square == 1344
    assert model.settings.backbone.path == BASE


def test_a_merged_model_embeds_as_base_and_adapter(published):
    model = Embedder.from_pretrained(ADAPTED)
    apart = model.encode(ITEMS)
    model.merge_adapter().save(published / "merged")
    (published / "merged/embedder.yaml").unlink()

    merged_model = Embedder.from_pretrained(published / "merged", profile="vlm2vec")

    assert (merged_model.encode(ITEMS) - apart).abs().max() <= 1e-6


def test_a_revision_of_ones_own_is_the_adapters_and_the_base_keeps_its_row(published, hub_cache):
    snapshots = hub_cache / f"models--{ADAPTED.replace('/', '--')}/snapshots"
    shutil.copytree(snapshots / load_released(ADAPTED)[0].revision, snapshots / ("c" * 40))
    asked = Asked(ADAPTED, overrides={"revision": "c" * 40})

    backbone = resolve(asked).backbone

    assert (backbone.adapter_revision, backbone.revision) == ("c" * 40, None)


def test_an_adapter_of_ones_own_opens_on_a_published_base_each_at_its_own_commit(published, hub_cache):
    name = "Alibaba-NLP/gme-Qwen2-VL-2B-Instruct"
    publish(hub_cache, name, published / "gme")
    put(hub_cache, "me/lora", published / "adapted/adapter", "e" * 40)

    backbone = resolve(Asked(name, adapter="me/lora")).backbone
    at_commit = resolve(Asked(name, adapter="me/lora", overrides={"adapter_revision": "e" * 40})).backbone

    assert (backbone.path, backbone.revision) == (name, load_released(name)[0].revision)
    assert (backbone.adapter, backbone.adapter_revision) == ("me/lora", None)
    assert at_commit.adapter_revision == "e" * 40
    assert Embedder.from_pretrained(name, adapter="me/lora").settings.backbone.adapter_revision == "e" * 40
    with pytest.raises(InputError, match=rf"adapter_revision: expected an adapter .* revision is that of {name}"):
        resolve(Asked(name, overrides={"adapter_revision": "e" * 40}))


def test_a_copy_on_the_hub_is_opened_at_its_own_commit(published, hub_cache):
    put(hub_cache, "me/copy", published / "adapted/adapter", "e" * 40)

    backbone = resolve(Asked("me/copy", profile=ADAPTED)).backbone

    assert (backbone.adapter, backbone.adapter_revision) == ("me/copy", "e" * 40)
    assert backbone.path == BASE


def test_an_unknown_repository_of_the_hub_asks_for_a_profile(whole, hub_cache):
    put(hub_cache, "someone/unknown", whole)

    with pytest.raises(InputError) as refused:
        Embedder.from_pretrained("someone/unknown")
    assert "someone/unknown: expected embedder.yaml beside the weights, got none; name a profile" in str(refused.value)
    assert "vlm2vec" in str(refused.value)


def test_a_row_says_what_it_differs_in():
    values = {"backbone": {"class_path": "QwenVL", "init_args": {"min_pixels": 1, "positions": "mrope"}}, "lora": None}
    deep = {"backbone": {"init_args": {"min_pixels": 2}}}
    other = {"backbone": {"class_path": "Mllama"}}

    assert merged(values, deep)["backbone"]["init_args"] == {"min_pixels": 2, "positions": "mrope"}
    assert merged(values, deep)["backbone"]["class_path"] == "QwenVL"
    assert merged(values, other)["backbone"] == {"class_path": "Mllama"}
    assert values["backbone"]["init_args"]["min_pixels"] == 1


@pytest.mark.parametrize(
    ("schema", "mode"),
    [
        ({"pooling_mode": "mean", "embedding_dimension": 8}, "mean"),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_lasttoken": False, "word_embedding_dimension": 8}, "mean"),
        ({"pooling_mode": "cls"}, "cls"),
        ({"pooling_mode": ["lasttoken", "mean"]}, "lasttoken, mean"),
        ({"pooling_mode": None}, "None"),
    ],
)
def test_a_checkpoint_that_pools_otherwise_is_refused(whole, schema, mode):
    says(whole, "1_Pooling/config.json", **schema)

    with pytest.raises(
        InputError, match=rf"1_Pooling/config.json: expected 'lasttoken', as profile vlm2vec pools, got {mode}"
    ):
        Embedder.from_pretrained(whole, profile="vlm2vec")


@pytest.mark.parametrize(
    "schema", [{"pooling_mode": "lasttoken"}, {"pooling_mode_lasttoken": True, "pooling_mode_mean_tokens": False}, {}]
)
def test_a_checkpoint_that_pools_as_its_profile_opens(whole, schema):
    says(whole, "1_Pooling/config.json", **schema)

    assert Embedder.from_pretrained(whole, profile="vlm2vec").width


def test_a_base_of_another_architecture_than_the_row_says_is_refused(published, hub_cache):
    config = hub_cache / f"models--{BASE.replace('/', '--')}/snapshots/{'d' * 40}/config.json"
    config.write_text(config.read_text().replace('"model_type": "qwen2_vl"', '"model_type": "qwen2_5_vl"'))

    with pytest.raises(InputError) as refused:
        resolve(Asked(ADAPTED))
    assert f"{BASE}: config.json: model_type: expected 'qwen2_vl', as the row of {ADAPTED}" in str(refused.value)
    assert "got 'qwen2_5_vl'; check the path, or name another profile" in str(refused.value)


def test_another_layout_than_the_row_says_is_refused(tmp_path):
    """Opened by transformers' files it would crop pictures a pixel beside."""
    write_clip(tmp_path / "copy")

    with pytest.raises(InputError, match=r"copy: config.json: model_type: expected 'open_clip', .* got 'clip'"):
        Embedder.from_pretrained(tmp_path / "copy", profile="laion/CLIP-ViT-B-32-laion2B-s34B-b79K")


def test_whole_weights_where_the_row_says_an_adapter_are_refused(whole):
    with pytest.raises(InputError, match=f"expected an adapter of {BASE}, got whole weights"):
        Embedder.from_pretrained(whole, profile=ADAPTED)


def test_an_adapter_of_another_base_than_its_row_names_is_refused(published):
    config = published / "adapted/adapter/adapter_config.json"
    config.write_text(config.read_text().replace(BASE, "/home/someone/Qwen2-VL-7B-Instruct/"))

    with pytest.raises(InputError) as refused:
        Embedder.from_pretrained(published / "adapted/adapter", profile=ADAPTED)
    assert f"expected an adapter of {BASE}, which its profile names" in str(refused.value)
    assert "got of /home/someone/Qwen2-VL-7B-Instruct/" in str(refused.value)


def test_a_path_of_the_authors_machine_is_the_base_of_the_row(published):
    config = published / "adapted/adapter/adapter_config.json"
    config.write_text(config.read_text().replace(BASE, "/home/someone/Qwen2-VL-2B-Instruct"))

    model = Embedder.from_pretrained(published / "adapted/adapter", profile=ADAPTED)

    assert model.settings.backbone.path == BASE


@pytest.mark.parametrize("base", ["", "/home/someone/Qwen2-VL-2B-Instruct"])
def test_an_adapter_whose_base_nobody_knows_is_refused(published, base):
    config = published / "adapted/adapter/adapter_config.json"
    config.write_text(config.read_text().replace(BASE, base))

    with pytest.raises(InputError, match=r"base_model_name_or_path: expected a directory or Hub id.*BASE, adapter="):
        Embedder.from_pretrained(published / "adapted/adapter", profile="vlm2vec")
