"""Adapters on every family: what trains, what is merged, what four bits hold, what is refused."""

import shutil
import warnings

import pytest
import torch
from bitsandbytes.nn import Linear4bit
from peft import PeftModel
from torch import nn
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForImageTextToText

from mmembed import Embedder
from mmembed.errors import InputError
from mmembed.models.adapters import add_lora
from mmembed.models.settings import Lora
from tests.families import FAMILIES, LANGUAGE, lora_of, opened, perturb, step


@pytest.mark.parametrize("checkpointing", [False, True], ids=["", "checkpointing"])
@pytest.mark.parametrize("name", FAMILIES)
def test_one_step_moves_every_weight_of_an_adapter_and_no_other(name, checkpointing, saved):
    embedder = opened(name, saved(name), lora=lora_of(name), gradient_checkpointing=checkpointing)
    perturb(embedder)

    trainable, moved = step(embedder, FAMILIES[name].items)

    assert moved == trainable
    assert trainable
    assert all("lora_" in name for name in trainable)


@pytest.mark.parametrize("name", FAMILIES)
def test_an_adapter_and_its_merged_weights_embed_alike(name, saved, embedder_of, tmp_path):
    # loud weights would make rounding loud, too
    embedder = opened(name, saved(name, loud=False), lora=lora_of(name)).eval()
    perturb(embedder)
    items = FAMILIES[name].items
    plain, adapted = embedder_of(name, loud=False).encode(items), embedder.encode(items)

    embedder.merge_adapter()
    merged = embedder.encode(items)
    embedder.save(tmp_path / "merged")

    assert not torch.allclose(adapted, plain, atol=1e-3)
    assert torch.allclose(merged, adapted, atol=1e-6, rtol=0)
    assert not embedder.has_adapter
    again = Embedder.from_pretrained(tmp_path / "merged", device="cpu")
    assert torch.equal(again.encode(items), merged)


@pytest.mark.parametrize("name", LANGUAGE)
def test_an_adapter_trains_on_a_base_in_four_bits(name, saved):
    embedder = opened(name, saved(name), lora=lora_of(name), quantize="nf4", gradient_checkpointing=True)
    perturb(embedder)
    language = dict(embedder.backbone.language_model.named_modules())
    small = {n for n, module in language.items() if isinstance(module, Linear4bit)}
    whole = {n for n, module in language.items() if type(module) is nn.Linear and "lora_" not in n}
    tower = set(embedder.backbone.tower.modules())

    trainable, moved = step(embedder, FAMILIES[name].items)

    assert small
    assert tower.issuperset(language[n] for n in whole)
    assert tower.isdisjoint(language[n] for n in small)
    assert moved == trainable
    assert all("lora_" in n for n in trainable)


def test_lora_on_a_name_that_no_layer_has_is_refused(saved):
    with pytest.raises(InputError, match=r"lora\.targets: expected suffixes of linear layers"):
        add_lora(opened("qwen2_vl", saved("qwen2_vl")).backbone.model, Lora(targets=("nothing",)))


BROKEN = {
    "no config": lambda adapter: (adapter / "adapter_config.json").unlink(),
    "cut short": lambda adapter: cut_short(adapter / "adapter_model.safetensors"),
    "not there": shutil.rmtree,
    "of another model": lambda adapter: rename_layers(adapter / "adapter_config.json"),
}


def cut_short(file):
    file.write_bytes(file.read_bytes()[:-100])


def rename_layers(file):
    file.write_text(file.read_text().replace("_proj", "_elsewhere"))


@pytest.mark.parametrize("damage", BROKEN.values(), ids=BROKEN)
def test_a_broken_adapter_is_refused_in_words(damage, saved, tmp_path):
    opened("qwen2_vl", saved("qwen2_vl"), lora=lora_of("qwen2_vl")).save(tmp_path / "run")
    damage(tmp_path / "run/adapter")

    with pytest.raises(InputError, match=r"adapter.*: expected (an adapter|whole safetensors files)"):
        opened("qwen2_vl", saved("qwen2_vl"), adapter=str(tmp_path / "run/adapter"))


@pytest.mark.parametrize("name", ["qwen2_vl", "llava_next", "qwen2", "bert"])
def test_peft_itself_opens_a_saved_adapter_on_the_librarys_own_model(name, saved, tmp_path):
    embedder = opened(name, saved(name), lora=lora_of(name))
    perturb(embedder)
    embedder.save(tmp_path / "run")
    kind = AutoModel if name == "bert" else AutoModelForCausalLM if name == "qwen2" else AutoModelForImageTextToText
    with warnings.catch_warnings():
        # the head is not saved; and peft asks in a way that transformers is about to leave
        warnings.simplefilter("ignore")
        theirs = PeftModel.from_pretrained(kind.from_pretrained(saved(name)), str(tmp_path / "run/adapter"))

    loaded = dict(theirs.named_parameters())
    ours = {n.removeprefix("backbone.model."): p for n, p in embedder.named_parameters() if "lora_" in n}
    assert ours
    for n, p in ours.items():
        assert torch.equal(next(loaded[other] for other in loaded if other.endswith(f".{n}")), p)
