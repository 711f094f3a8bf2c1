"""A Hub id opens one commit, whole: settings, weights and parts beside; offline, what the cache holds of it."""

import shutil
from dataclasses import replace

import pytest
import torch

from mmembed import Embedder
from mmembed.errors import InputError
from mmembed.evaluation.about import about
from mmembed.models.settings import (
    DualEncoder,
    EmbedderSettings,
    LatentAttention,
    Lora,
    QwenVL,
    RawPrompt,
    Sam2Regions,
    TextRegions,
)
from tests.cases import GOLDEN, WORDS, small_settings
from tests.families import family_embedder, perturb
from tests.models_hub import go_offline

OLD, NEW, OTHER = "a" * 40, "b" * 40, "c" * 40
ITEMS = ["a red dress", {"text": "blue", "instruction": "Find it."}]
FEW = LatentAttention(latents=2, heads=2)


def seeded(seed, **choices):
    settings = small_settings("qwen2_vl", **choices)
    scratch = replace(settings.backbone.scratch, seed=seed)
    torch.manual_seed(seed)
    return Embedder(replace(settings, backbone=replace(settings.backbone, scratch=scratch)), texts=WORDS).eval()


def publish(model_hub, repo, models, folder):
    """Save models and put each as a commit of a repository, the last at the head of its main branch."""
    for commit, model in models.items():
        model.save(folder / commit)
        model_hub.publish(repo, folder / commit, commit)


def test_a_revision_is_opened_with_its_settings_weights_and_parts_beside(model_hub, tmp_path):
    models = {OTHER: seeded(0, pooler=FEW), OLD: seeded(1, pooler=FEW), NEW: seeded(2, regions=TextRegions())}
    publish(model_hub, "me/model", models, tmp_path)

    for revision, commit in ((OTHER, OTHER), (OLD, OLD), (NEW, NEW), (None, NEW), ("main", NEW)):
        opened = Embedder.from_pretrained("me/model", device="cpu", revision=revision)
        assert torch.equal(opened.encode(ITEMS), models[commit].encode(ITEMS))
        assert opened.settings.regions == models[commit].settings.regions
        assert opened.settings.backbone.revision == commit
        assert about(opened, {})["settings"]["backbone"]["init_args"]["revision"] == commit


def test_a_saved_adapter_opens_on_the_commit_of_the_base_that_it_was_trained_on(model_hub, tmp_path):
    publish(model_hub, "me/base", {OLD: seeded(1)}, tmp_path / "base")
    on_base = EmbedderSettings(QwenVL(path="me/base", min_side=0), RawPrompt(), lora=Lora(r=2, alpha=4, dropout=0.0))
    adapted = {commit: Embedder(on_base).eval() for commit in (OTHER, NEW)}
    for model in adapted.values():
        perturb(model)
    publish(model_hub, "me/base", {NEW: seeded(2)}, tmp_path / "base")
    publish(model_hub, "me/adapter", adapted, tmp_path / "adapter")

    for revision in adapted:
        opened = Embedder.from_pretrained("me/adapter", device="cpu", revision=revision)
        assert opened.settings.backbone.revision == OLD
        assert torch.equal(opened.encode(ITEMS), adapted[revision].encode(ITEMS))


def test_the_commits_of_base_and_adapter_of_another_layout_are_recorded(model_hub, tmp_path):
    base = seeded(1)
    base.save(tmp_path / "base")
    adapted = Embedder(
        EmbedderSettings(QwenVL(path=str(tmp_path / "base"), min_side=0), RawPrompt(), lora=Lora(r=2, alpha=4))
    )
    adapted.save(tmp_path / "saved")
    config = tmp_path / "saved/adapter/adapter_config.json"
    config.write_text(config.read_text().replace(str(tmp_path / "base"), "me/base"))
    (tmp_path / "base/embedder.yaml").unlink()
    model_hub.publish("me/base", tmp_path / "base", OLD)
    model_hub.publish("me/peft", tmp_path / "saved/adapter", OTHER)
    model_hub.publish("me/peft", {}, NEW)

    backbone = Embedder.from_pretrained("me/peft", profile="vlm2vec", revision=OTHER).settings.backbone

    assert (backbone.path, backbone.revision) == ("me/base", OLD)
    assert (backbone.adapter, backbone.adapter_revision) == ("me/peft", OTHER)


def test_a_dual_encoder_and_a_sam_are_opened_at_a_commit(model_hub, tmp_path):
    models = {OLD: family_embedder("clip"), NEW: family_embedder("siglip")}
    publish(model_hub, "me/dual", models, tmp_path / "dual")
    model_hub.publish("me/sam", GOLDEN / "virtue/sam2_tiny/native", OLD)
    model_hub.publish("me/sam", {}, NEW)

    dual = Embedder(EmbedderSettings(DualEncoder(path="me/dual", revision=OLD)))
    regions = Sam2Regions(checkpoint="me/sam", revision=OLD)
    with_sam = Embedder(replace(small_settings("qwen2_vl"), regions=regions), texts=WORDS)

    assert dual.backbone.model.state_dict().keys() == models[OLD].backbone.model.state_dict().keys()
    assert (dual.settings.backbone.revision, with_sam.settings.regions.revision) == (OLD, OLD)
    with pytest.raises(InputError, match=r"me/sam: config.json: expected model_type sam2"):
        Embedder(replace(small_settings("qwen2_vl"), regions=replace(regions, revision=None)), texts=WORDS)


def test_a_filled_cache_opens_offline_without_asking_anyone(model_hub, tmp_path, monkeypatch):
    model = seeded(0, pooler=FEW)
    publish(model_hub, "me/model", {NEW: model}, tmp_path)
    Embedder.from_pretrained("me/model", device="cpu")
    asked = len(model_hub.asked)
    go_offline(monkeypatch)

    for revision in (None, "main", NEW):
        opened = Embedder.from_pretrained("me/model", device="cpu", revision=revision)
        assert torch.equal(opened.encode(ITEMS), model.encode(ITEMS))
        assert opened.settings.backbone.revision == NEW
    assert len(model_hub.asked) == asked


def test_a_commit_that_lies_in_the_cache_opens_without_asking_anyone(model_hub, tmp_path):
    publish(model_hub, "me/model", {NEW: seeded(0)}, tmp_path)
    Embedder.from_pretrained("me/model", device="cpu")
    asked = len(model_hub.asked)

    assert Embedder.from_pretrained("me/model", device="cpu", revision=NEW).width

    assert len(model_hub.asked) == asked


def test_a_cache_that_another_program_filled_opens_offline(model_hub, tmp_path, monkeypatch):
    folder = tmp_path / "cache/models--me--model"
    model = seeded(0)
    model.save(tmp_path / "saved")
    (folder / "refs").mkdir(parents=True)
    (folder / "refs/main").write_text(OLD)
    shutil.copytree(tmp_path / "saved", folder / "snapshots" / OLD)
    go_offline(monkeypatch)

    assert torch.equal(Embedder.from_pretrained("me/model", device="cpu").encode(ITEMS), model.encode(ITEMS))
    with pytest.raises(InputError, match=rf"no whole me/model at {NEW} in .*; check the name; unset HF_HUB_OFFLINE"):
        Embedder.from_pretrained("me/model", revision=NEW)


def test_the_weights_are_downloaded_last(model_hub, tmp_path):
    publish(model_hub, "me/model", {NEW: seeded(0, pooler=FEW)}, tmp_path)

    Embedder.from_pretrained("me/model", device="cpu")

    names = [path.rpartition("/")[2] for verb, path in model_hub.asked if verb == "GET" and "/resolve/" in path]
    assert {"config.json", "tokenizer.json", "preprocessor_config.json", "pooler.safetensors"} <= set(names)
    assert names[-1] == "model.safetensors"


def test_a_download_that_was_interrupted_is_not_opened_offline(model_hub, tmp_path, monkeypatch):
    seeded(0).save(tmp_path / "saved")
    model_hub.publish("me/model", tmp_path / "saved", NEW)
    Embedder.from_pretrained("me/model", device="cpu")
    (tmp_path / f"cache/models--me--model/snapshots/{NEW}/model.safetensors").unlink()
    go_offline(monkeypatch)

    with pytest.raises(InputError, match=r"me/model: expected a checkpoint"):
        Embedder.from_pretrained("me/model", device="cpu")
