"""Adapters: fresh, trained, saved, opened, and read by other libraries."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForImageTextToText

from mmembed import Embedder, Item
from mmembed.errors import InputError
from mmembed.models.adapters import add_lora, rename
from mmembed.models.backbones.qwen_vl.backbone import QWEN_VL
from mmembed.models.sequence import collate
from mmembed.models.settings import EmbedderSettings, Lora, QwenVL, RawPrompt

LORA = Lora(r=4, alpha=8, dropout=0.0)
DORA = Lora(r=4, alpha=8, dropout=0.0, dora=True)


def adapted(path, lora, **backbone):
    torch.manual_seed(0)
    return Embedder(
        EmbedderSettings(QwenVL(path=str(path), positions="sequential", **backbone), RawPrompt(), lora=lora)
    )


def train_a_step(embedder, items):
    optimizer = torch.optim.SGD([p for p in embedder.parameters() if p.requires_grad], lr=0.5)
    embedder(collate(embedder.prepare(items, "query")))[:, 0].sum().backward()
    optimizer.step()
    return embedder.eval()


@pytest.fixture
def base(golden):
    return golden / "vlm2vec/qwen2_5_vl"


@pytest.fixture
def items(picture):
    return [Item.of("a red circle"), Item.of({"image": picture(56, 84), "text": "the same"})]


@pytest.mark.parametrize("lora", [LORA, DORA], ids=["lora", "dora"])
def test_a_fresh_adapter_changes_nothing_until_it_trains(lora, base, items):
    plain, fresh = adapted(base, None), adapted(base, lora)

    before = fresh.encode(items)
    after = train_a_step(fresh, items).encode(items)

    assert torch.allclose(before, plain.encode(items), atol=1e-5, rtol=0)
    assert not torch.allclose(after, before, atol=1e-3)


@pytest.mark.parametrize("lora", [LORA, DORA], ids=["lora", "dora"])
def test_a_trained_adapter_opens_to_the_same_bits(lora, base, items, tmp_path):
    embedder = train_a_step(adapted(base, lora), items)

    embedder.save(tmp_path / "run")
    opened = Embedder.from_pretrained(tmp_path / "run", device="cpu")

    assert torch.equal(opened.encode(items), embedder.encode(items))
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == ["adapter", "embedder.yaml"]
    trainable = {n for n, p in opened.named_parameters() if p.requires_grad}
    assert trainable == {n for n, p in embedder.named_parameters() if p.requires_grad}


def test_only_the_adapter_trains_and_dora_adds_a_magnitude_to_each_layer(base):
    names = {kind: [n for n, p in adapted(base, lora).named_parameters() if p.requires_grad]
             for kind, lora in (("lora", LORA), ("dora", DORA))}  # fmt: skip

    assert names["lora"]
    assert all("lora_" in name for name in names["lora"])
    magnitudes = {n.split(".lora_")[0] for n in names["dora"] if "magnitude" in n}
    assert magnitudes == {n.split(".lora_")[0] for n in names["lora"]}


def test_the_adapted_layers_are_the_published_ones(golden, fresh_golden):
    published = json.loads((golden / "vlm2vec/golden/train/lora_targets.json").read_text())

    for family in ("qwen2_vl", "qwen2_5_vl"):
        embedder = fresh_golden(family)
        add_lora(embedder.backbone.model, Lora())
        ours = {n.split(".lora_A")[0] for n, _ in embedder.backbone.model.named_parameters() if ".lora_A" in n}
        layers = {".".join("N" if p.isdigit() else p for p in rename(n, QWEN_VL.renames).split(".")) for n in ours}
        assert layers == {rename(name, QWEN_VL.renames) for name in published[family]}


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
@pytest.mark.parametrize("lora", [LORA, DORA], ids=["lora", "dora"])
def test_peft_itself_opens_a_saved_adapter_to_the_same_hidden_states(lora, base, items, tmp_path):
    embedder = train_a_step(adapted(base, lora), items[:1])
    embedder.save(tmp_path / "run")
    row = embedder.prepare(items[:1], "query")[0]

    full = AutoModelForImageTextToText.from_pretrained(base, dtype=torch.float32)
    theirs = PeftModel.from_pretrained(full, str(tmp_path / "run/adapter")).eval()

    positions = row.positions[:, None]
    with torch.no_grad():
        output = theirs(input_ids=row.ids[None], position_ids=positions, output_hidden_states=True)
    state = torch.nn.functional.normalize(output.hidden_states[-1][0, -1:], dim=-1)
    assert torch.allclose(state, embedder.encode(items[:1]), atol=1e-5, rtol=0)
    assert not torch.allclose(state, adapted(base, None).encode(items[:1]), atol=1e-3)


@pytest.fixture
def published_adapter(golden, tmp_path):
    return shutil.copytree(golden / "vlm2vec/qwen2_vl_lora", tmp_path / "adapter")


def test_an_adapter_with_a_missing_and_an_unexpected_weight_is_refused_by_name(published_adapter, fresh_golden):
    weights = load_file(published_adapter / "adapter_model.safetensors")
    name = "base_model.model.model.layers.1.mlp.up_proj.lora_B.weight"
    weights[name.replace("layers.1", "layers.7")] = weights.pop(name)
    save_file(weights, published_adapter / "adapter_model.safetensors")

    with pytest.raises(InputError) as error:
        fresh_golden("qwen2_vl", adapter=str(published_adapter))

    assert "adapter_model.safetensors" in error.value.where
    missing, unexpected = "language_model.layers.1.mlp.up_proj.lora_B.weight", "language_model.layers.7.mlp.up_proj"
    assert f"1 missing: {missing}" in error.value.got
    assert f"1 unexpected: {unexpected}" in error.value.got


def test_an_adapter_in_torchs_own_file_is_read_as_the_same_in_safetensors(published_adapter, fresh_golden):
    items = ["a red circle", "blue"]
    as_published = fresh_golden("qwen2_vl", adapter=str(published_adapter)).encode(items)
    weights = load_file(published_adapter / "adapter_model.safetensors")
    (published_adapter / "adapter_model.safetensors").unlink()
    torch.save(weights, published_adapter / "adapter_model.bin")

    assert torch.equal(fresh_golden("qwen2_vl", adapter=str(published_adapter)).encode(items), as_published)


def test_a_pickled_adapter_that_holds_objects_is_refused(published_adapter, fresh_golden):
    (published_adapter / "adapter_model.safetensors").unlink()
    torch.save({"lora_A": torch.zeros(2), "run": Path("me")}, published_adapter / "adapter_model.bin")

    with pytest.raises(InputError, match="expected weights by their names and nothing else, got no whole file"):
        fresh_golden("qwen2_vl", adapter=str(published_adapter))


def test_a_folder_without_an_adapters_weights_is_refused(published_adapter, fresh_golden):
    (published_adapter / "adapter_model.safetensors").unlink()

    with pytest.raises(InputError, match=r"expected adapter_model\.safetensors or adapter_model\.bin, got .*config"):
        fresh_golden("qwen2_vl", adapter=str(published_adapter))


def test_an_adapter_of_other_shapes_is_refused_in_words(published_adapter, fresh_golden):
    weights = load_file(published_adapter / "adapter_model.safetensors")
    name = "base_model.model.model.layers.1.mlp.up_proj.lora_B.weight"
    save_file(weights | {name: torch.zeros(5, 4)}, published_adapter / "adapter_model.safetensors")

    with pytest.raises(InputError, match=r"layers\.1\.mlp\.up_proj\.lora_B\.weight"):
        fresh_golden("qwen2_vl", adapter=str(published_adapter))


def test_targets_that_name_no_layer_are_refused(base):
    with pytest.raises(
        InputError,
        match=r"lora\.targets: expected suffixes of linear layers of the model, got nothing; its linear .*q_proj",
    ):
        adapted(base, Lora(targets=("nothing",)))


def test_an_adapter_is_not_saved_over_its_own_base(base, tmp_path):
    copy = shutil.copytree(base, tmp_path / "base")
    embedder = adapted(copy, LORA)

    with pytest.raises(InputError, match="expected another directory than the base model's, got the same"):
        embedder.save(copy)

    assert (copy / "model.safetensors").exists()


def test_gradient_checkpointing_gives_the_adapter_the_same_gradient(base, items):
    gradients = []
    for checkpointing in (False, True):
        embedder = adapted(base, LORA, gradient_checkpointing=checkpointing).train()
        embedder(collate(embedder.prepare(items, "query")))[:, :9].sum().backward()
        gradients.append({n: p.grad for n, p in embedder.named_parameters() if p.grad is not None})

    plain, checkpointed = gradients
    assert plain.keys() == checkpointed.keys()
    assert all(torch.allclose(checkpointed[n], g, atol=1e-6) for n, g in plain.items())
    assert max(g.abs().max() for g in plain.values()) > 1e-3


@pytest.mark.parametrize("lora", [LORA, DORA], ids=["lora", "dora"])
def test_a_merged_adapter_is_a_whole_model_that_embeds_alike(lora, base, items, tmp_path):
    embedder = train_a_step(adapted(base, lora), items)
    vectors, plain = embedder.encode(items), adapted(base, None)

    merged = embedder.merge_adapter()
    merged.save(tmp_path / "merged")
    opened = Embedder.from_pretrained(tmp_path / "merged", device="cpu")

    assert merged is embedder
    assert not merged.has_adapter
    assert (merged.settings.lora, opened.settings.lora, opened.settings.backbone.adapter) == (None, None, None)
    assert not (tmp_path / "merged/adapter").exists()
    assert torch.allclose(merged.encode(items), vectors, atol=1e-6, rtol=0)
    assert torch.equal(opened.encode(items), merged.encode(items))
    assert merged.state_dict().keys() == plain.state_dict().keys()
    assert merged.trainable == opened.trainable == plain.trainable
    assert not torch.allclose(vectors, plain.encode(items), atol=1e-3)


def test_transformers_opens_a_merged_model(base, items, tmp_path):
    embedder = train_a_step(adapted(base, LORA), items).merge_adapter()
    embedder.save(tmp_path / "merged")

    theirs = AutoModel.from_pretrained(tmp_path / "merged", dtype=torch.float32).state_dict()

    ours = embedder.backbone.model.state_dict()
    assert theirs.keys() == ours.keys()
    assert all(torch.equal(theirs[name], value) for name, value in ours.items())


def test_an_adapter_that_was_loaded_merges_too(golden, golden_item, fresh_golden):
    embedder = fresh_golden("qwen2_vl", adapter=str(golden / "vlm2vec/qwen2_vl_lora"))
    items = [golden_item("a red circle", []), golden_item("{IMG} what is it", ["images/d56.png"])]
    vectors = embedder.encode(items)

    assert torch.allclose(embedder.merge_adapter().encode(items), vectors, atol=1e-6, rtol=0)


def test_only_an_adapter_on_whole_weights_is_merged(base):
    with pytest.raises(InputError, match="merge_adapter: expected a model with an adapter, got none"):
        adapted(base, None).merge_adapter()
    with pytest.raises(InputError, match="expected a base in whole weights, got a quantised one; open the adapter on"):
        adapted(base, LORA, quantize="nf4").merge_adapter()
