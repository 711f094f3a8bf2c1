"""What trains: every weight that an embedding depends on, adapters on the published layers, 4-bit bases."""

import json

import pytest
import torch
from bitsandbytes.nn import Linear4bit
from peft import LoraConfig, get_peft_model
from torch import nn

from mmembed import Embedder, Item
from mmembed.models.adapters import add_lora, rename
from mmembed.models.backbones.phi3_v.backbone import PHI3_V
from mmembed.models.sequence import collate
from mmembed.models.settings import EmbedderSettings, Lora, Phi3V, RawPrompt
from tests.cases import GOLDEN
from tests.models.backbones.phi3_v.conftest import PUBLISHED, open_directory

LAST = "vision_embed_tokens.img_processor.encoder.layers.2."


@pytest.fixture(scope="module")
def items(picture):
    return [Item.of("a red circle"), Item.of({"image": picture(84, 56), "text": "the same, but blue"})]


def gradients(embedder, items):
    embedder.train()(collate(embedder.prepare(items, "query")))[:, :9].sum().backward()
    return {name: p.grad for name, p in embedder.named_parameters() if p.grad is not None}


def adapted(lora, **backbone):
    torch.manual_seed(0)
    settings = EmbedderSettings(Phi3V(path=str(PUBLISHED), num_crops=1, **backbone), RawPrompt(), lora=lora)
    return Embedder(settings)


def layers_of(names):
    return {".".join("N" if part.isdigit() else part for part in name.split(".")) for name in names}


def test_a_step_moves_every_weight_but_those_behind_the_layer_that_is_read(fresh_small, items):
    embedder = fresh_small()
    before = {name: p.detach().clone() for name, p in embedder.named_parameters()}

    found = gradients(embedder, items)
    torch.optim.AdamW([p for p in embedder.parameters() if p.requires_grad], lr=0.01).step()

    after = dict(embedder.named_parameters())
    assert found.keys() == embedder.trainable
    assert {name for name in before if not torch.equal(after[name], before[name])} == embedder.trainable
    still = before.keys() - embedder.trainable
    assert {name.split("img_processor.")[1].split(".self_attn")[0].split(".mlp")[0] for name in still} == {
        "encoder.layers.1", "encoder.layers.1.layer_norm1.weight", "encoder.layers.1.layer_norm1.bias",
        "encoder.layers.1.layer_norm2.weight", "encoder.layers.1.layer_norm2.bias",
        "post_layernorm.weight", "post_layernorm.bias",
    }  # fmt: skip


def test_gradient_checkpointing_gives_the_same_gradients(fresh_small, items):
    plain = gradients(fresh_small(), items)
    recomputed = gradients(fresh_small(gradient_checkpointing=True), items)

    assert recomputed.keys() == plain.keys()
    assert all(torch.allclose(recomputed[name], value, atol=1e-6) for name, value in plain.items())
    assert max(value.abs().max() for value in plain.values()) > 1e-3


def test_the_adapted_layers_are_the_published_ones(fresh_published):
    published = json.loads((GOLDEN / "vlm2vec/golden/train/lora_targets.json").read_text())["phi3_v"]
    model = fresh_published().backbone.model

    add_lora(model, Lora())

    ours = {name.split(".lora_A")[0] for name, _ in model.named_parameters() if ".lora_A" in name}
    assert layers_of(ours) == {rename(name, PHI3_V.renames) for name in published}
    assert any(name.startswith(LAST) for name in ours)


def test_an_adapter_on_a_layer_that_is_not_run_does_not_train(items):
    embedder = adapted(Lora(r=4))

    names = {name.removeprefix("backbone.model.") for name in embedder.trainable}

    assert not any(name.startswith(LAST) for name in names)
    assert gradients(embedder, items).keys() == embedder.trainable


class AsPublished(nn.Module):
    """The same layers under the names of the published classes: a head's prefix, and CLIP one level deeper."""

    def __init__(self, model):
        super().__init__()
        deeper = nn.Module()
        deeper.vision_model = model.vision_embed_tokens.img_processor
        model.vision_embed_tokens.img_processor = deeper
        self.model = model


def test_an_adapter_that_peft_saved_under_the_published_names_is_read(fresh_published, items, tmp_path):
    config = LoraConfig(r=4, lora_alpha=8, target_modules=list(Lora().targets), init_lora_weights=False)
    published = get_peft_model(AsPublished(fresh_published().backbone.model), config)
    published.save_pretrained(tmp_path)

    embedder = open_directory(PUBLISHED, adapter=str(tmp_path), num_crops=1)

    theirs = {
        name.replace("img_processor.vision_model", "img_processor").removeprefix("base_model.model.model."): p
        for name, p in published.named_parameters()
        if "lora_" in name
    }
    ours = {name: p for name, p in embedder.backbone.model.named_parameters() if "lora_" in name}
    assert len(ours) == 2 * (2 * 4 + 3 * 4)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(p, theirs[name]) for name, p in ours.items())
    plain = open_directory(PUBLISHED, num_crops=1)
    assert not torch.allclose(embedder.encode(items), plain.encode(items), atol=1e-3)


@pytest.mark.parametrize("dora", [False, True], ids=["lora", "dora"])
def test_a_trained_adapter_opens_to_the_same_bits(dora, items, tmp_path):
    embedder = adapted(Lora(r=4, dropout=0.0, dora=dora))
    fresh = embedder.encode(items)
    gradients(embedder, items)
    torch.optim.SGD([p for p in embedder.parameters() if p.requires_grad], lr=0.5).step()

    embedder.save(tmp_path / "run")
    opened = Embedder.from_pretrained(tmp_path / "run", device="cpu")

    assert torch.equal(opened.encode(items), embedder.encode(items))
    assert not torch.allclose(opened.encode(items), fresh, atol=1e-3)
    assert opened.trainable == embedder.trainable


def test_only_the_language_models_linear_layers_are_held_in_4_bits(items):
    whole, small = adapted(None), adapted(None, quantize="nf4")

    held = {name for name, module in small.named_modules() if isinstance(module, Linear4bit)}

    linear = {name for name, module in whole.named_modules() if isinstance(module, nn.Linear)}
    assert held == {name for name in linear if ".vision_embed_tokens." not in name}
    assert len(held) == 2 * 4
    assert (small.encode(items) * whole.encode(items)).sum(-1).min() > 0.9


def test_an_adapter_trains_on_a_base_in_4_bits(items):
    embedder = adapted(Lora(r=4, dropout=0.0), quantize="nf4")

    found = gradients(embedder, items)

    assert found.keys() == embedder.trainable
    assert all("lora_" in name for name in found)
    assert max(value.abs().max() for value in found.values()) > 1e-3
