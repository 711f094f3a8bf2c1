"""open_clip's checkpoints: opened whole or refused with the names of what is wrong, and saved for open_clip to open."""

import json
import logging
import pickle
from dataclasses import replace

import open_clip
import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertModel

from mmembed import Embedder, Item
from mmembed.errors import InputError
from mmembed.models.adapters import save_adapter
from mmembed.models.backbones.dual_encoder.released import released
from mmembed.models.settings import DualEncoder, EmbedderSettings, RawPrompt, Scratch, Sum
from tests.models.backbones.dual_encoder.checkpoints import CLIP, MAKERS, gelu, opened, quick_gelu, scratch, write

WEIGHTS, TABLE = "open_clip_model.safetensors", "token_embedding.weight"


@pytest.fixture
def checkpoint(tmp_path):
    return quick_gelu(tmp_path / "checkpoint")


def edit_weights(directory, change):
    weights = load_file(directory / WEIGHTS)
    change(weights)
    save_file(weights, directory / WEIGHTS)


def edit_config(directory, change):
    path = directory / "open_clip_config.json"
    said = json.loads(path.read_text())
    change(said)
    path.write_text(json.dumps(said))


@pytest.mark.parametrize("name", MAKERS)
def test_what_is_saved_opens_in_open_clip_and_here_with_the_same_bits(name, tmp_path, picture):
    first = opened(MAKERS[name](tmp_path / "checkpoint"))
    items = ["a red circle", {"image": picture(60, 40), "text": "the same, but blue"}, picture(90, 31)]

    first.save(tmp_path / "saved")

    again = Embedder.from_pretrained(tmp_path / "saved", device="cpu")
    assert torch.equal(again.encode(items), first.encode(items))
    assert again.backbone.facts() == first.backbone.facts()
    theirs, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{tmp_path / 'saved'}")
    ours = first.backbone.model.state_dict()
    assert theirs.state_dict().keys() == ours.keys()
    assert all(torch.equal(value, ours[key]) for key, value in theirs.state_dict().items())
    pixels = first.prepare([Item.of(picture(90, 31))], "query")[0].media[0].pixels[:, :, 0]
    normalised = (pixels / 255 - first.backbone.mean) / first.backbone.std
    assert torch.allclose(preprocess(picture(90, 31)), normalised[0], atol=1e-6)


def test_half_precision_weights_are_saved_and_opened_as_they_are(tmp_path, checkpoint, picture):
    items = ["a red circle", {"image": picture(60, 40), "text": "blue"}]
    half = opened(checkpoint, dtype="bfloat16")

    half.save(tmp_path / "saved")

    assert load_file(tmp_path / "saved" / WEIGHTS)["visual.proj"].dtype == torch.bfloat16
    again = Embedder.from_pretrained(tmp_path / "saved", device="cpu")
    assert torch.equal(again.encode(items), half.encode(items))
    assert torch.allclose(half.encode(items), opened(checkpoint).encode(items), atol=0.05)


def test_a_bare_checkpoint_opens_under_the_profile(checkpoint, picture):
    item = {"image": picture(60, 40), "text": "a dog"}

    embedder = Embedder.from_pretrained(checkpoint, profile="clip", device="cpu", transform="targetpad")

    assert embedder.settings.pooler == Sum()
    assert torch.equal(embedder.encode(item), opened(checkpoint, transform="targetpad").encode(item))
    assert not torch.equal(embedder.encode(item), opened(checkpoint).encode(item))


def test_a_missing_weight_is_named(checkpoint):
    edit_weights(checkpoint, lambda weights: weights.pop("ln_final.weight"))

    with pytest.raises(InputError, match=r"exactly the weights of its config, got 1 missing: ln_final\.weight"):
        opened(checkpoint)


def test_an_unexpected_weight_is_named(checkpoint):
    edit_weights(checkpoint, lambda weights: weights.update({"extra.weight": torch.ones(2)}))

    with pytest.raises(InputError, match=r"got 1 unexpected: extra\.weight"):
        opened(checkpoint)


@pytest.mark.parametrize("name", ["ln_final.weight", "positional_embedding", "visual.positional_embedding"])
def test_a_weight_of_another_shape_is_named(name, checkpoint):
    edit_weights(checkpoint, lambda weights: weights.update({name: weights[name][:-1].clone()}))

    with pytest.raises(InputError, match=rf"got 1 of another shape: {name}"):
        opened(checkpoint)


def test_a_scale_of_another_shape_does_not_matter(checkpoint):
    edit_weights(checkpoint, lambda weights: weights.update({"logit_scale": torch.ones(1)}))

    assert opened(checkpoint).encode("a dog").shape == (1, 24)


UNUSABLE = {
    "no weights": (lambda path: (path / WEIGHTS).unlink(), r"expected open_clip_model\.safetensors, got open_"),
    "pickle": (
        lambda path: (path / WEIGHTS).rename(path / "open_clip_pytorch_model.bin"),
        r"got .*open_clip_pytorch_model\.bin; download it again; pickled weights are refused",
    ),
    "half of the weights": (
        lambda path: (path / WEIGHTS).write_bytes((path / WEIGHTS).read_bytes()[:1000]),
        "expected whole safetensors files",
    ),
    "no config": (lambda path: (path / "open_clip_config.json").unlink(), "expected an open_clip checkpoint with"),
    "broken config": (
        lambda path: (path / "open_clip_config.json").write_text("{"), "expected an open_clip checkpoint with"
    ),
    "other config": (
        lambda path: (path / "open_clip_config.json").write_text("{}"), r"_config\.json: expected model_cfg with"
    ),
    "a list for a config": (
        lambda path: (path / "open_clip_config.json").write_text("[]"), r"_config\.json: expected a mapping, got a list"
    ),
    "a list for model_cfg": (
        lambda path: edit_config(path, lambda said: said.update(model_cfg=["embed_dim", "vision_cfg", "text_cfg"])),
        "model_cfg: expected a mapping, got a list",
    ),
    "a list for a tower": (
        lambda path: edit_config(path, lambda said: said["model_cfg"].update(vision_cfg=[])),
        "vision_cfg: expected a mapping, got a list",
    ),
    "words for preprocessing": (
        lambda path: edit_config(path, lambda said: said.update(preprocess_cfg="squash")),
        "preprocess_cfg: expected a mapping, got a str",
    ),
    "unknown field": (
        lambda path: edit_config(path, lambda said: said["model_cfg"]["text_cfg"].update(depth=3)), "argument 'depth'"
    ),
    "unknown timm model": (
        lambda path: edit_config(path, lambda said: said["model_cfg"]["vision_cfg"].update(timm_model_name="vitt")),
        r"expected an open_clip checkpoint .* got Unknown model \(vitt\)",
    ),
    "small vocabulary": (
        lambda path: (
            edit_config(path, lambda said: said["model_cfg"]["text_cfg"].update(vocab_size=100)),
            edit_weights(path, lambda w: w.update({TABLE: w[TABLE][:100].clone()})),
        ),
        "expected a tokenizer of at most 100 words, which the text tower knows, got 49408",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", UNUSABLE)
def test_an_unusable_directory_is_refused_in_words(name, checkpoint):
    change, message = UNUSABLE[name]
    change(checkpoint)

    with pytest.raises(InputError, match=rf"checkpoint.*{message}"):
        opened(checkpoint)


def test_a_checkpoint_without_its_tokenizer_is_refused_in_words(tmp_path):
    scratch("siglip").save(tmp_path / "saved")
    (tmp_path / "saved/tokenizer.json").unlink()

    with pytest.raises(InputError, match=r"saved: expected an open_clip checkpoint with .* and tokenizer"):
        opened(tmp_path / "saved")


def test_another_librarys_checkpoint_is_refused_in_words(tmp_path):
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    BertModel(BertConfig(vocab_size=100, **small)).save_pretrained(tmp_path)

    with pytest.raises(InputError, match=r"expected an open_clip checkpoint with open_clip_config\.json"):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("nowhere/at/all", "nowhere/at/all: expected an open_clip checkpoint .* got no such directory; check the path"),
        ("nobody/nothing", "nobody/nothing: expected a directory, or a Hub repository that lies in the cache"),
        (
            "ViT-B-32-quickgelu:openai",
            r"vit_base_patch32_clip_224\.openai: expected a directory, or a Hub",
        ),
    ],
)
def test_what_cannot_be_found_or_downloaded_is_refused_in_words(path, problem):
    with pytest.raises(InputError, match=problem):
        opened(path)


@pytest.mark.parametrize("layer", ["attn", "attn.out_proj"])
def test_a_loaded_adapter_on_fused_attention_is_refused_in_words(layer, tmp_path, checkpoint):
    model, _ = open_clip.create_model_from_pretrained(f"local-dir:{checkpoint}")
    inject_adapter_in_model(LoraConfig(r=2, target_modules=[layer], base_model_name_or_path="x"), model)
    save_adapter(model, tmp_path / "adapter", str(checkpoint), "")

    message = rf"resblocks\.0\.{layer}, a fused attention; name the layers beside it"
    with pytest.raises(InputError, match=message):
        opened(checkpoint, adapter=str(tmp_path / "adapter"))


def test_weights_are_opened_only_in_an_architecture_with_their_activation():
    assert released("ViT-B-32-quickgelu:openai").config["quick_gelu"]
    assert not released("ViT-B-32:laion2b_s34b_b79k").config.get("quick_gelu")
    with pytest.raises(
        InputError, match=r"QuickGELU, which these .* got ViT-B-32 with GELU; name ViT-B-32-quickgelu:openai"
    ):
        released("ViT-B-32:openai")
    with pytest.raises(
        InputError, match=r"GELU, which these .* got ViT-B-32-quickgelu with QuickGELU; name ViT-B-32:laion2b_s34b_b79k"
    ):
        released("ViT-B-32-quickgelu:laion2b_s34b_b79k")


def test_all_weights_that_open_clip_lists_open_with_their_activation_or_are_refused_with_what_would():
    refused = 0
    for model, tag in open_clip.list_pretrained():
        trained = bool(open_clip.get_pretrained_cfg(model, tag).get("quick_gelu"))
        if trained == bool(open_clip.get_model_config(model).get("quick_gelu")):
            found = released(f"{model}:{tag}")
            assert found.file.endswith(".safetensors")
            assert found.repository.count("/") == 1
        else:
            refused += 1
            with pytest.raises(InputError, match="which these weights were trained with") as error:
                released(f"{model}:{tag}")
            instead = error.value.remedy.rpartition(" ")[2]
            assert "/" in instead or released(instead).model != model
    assert refused >= 20


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("ViT-B-23:openai", "got 'ViT-B-23'; did you mean 'ViT-B-32'"),
        ("ViT-B-32:laion2b", "weights that open_clip lists for ViT-B-32, got 'laion2b'; did you mean 'laion2b_"),
        ("hf-hub:timm/x", "an architecture and tag that open_clip lists, got 'hf-hub'"),
    ],
)
def test_an_unknown_architecture_or_tag_is_answered_with_the_nearest(path, message):
    with pytest.raises(InputError, match=message):
        opened(path)


def test_the_profile_of_weights_travels_with_them():
    siglip = released("ViT-B-16-SigLIP:webli")

    assert siglip.repository == "timm/ViT-B-16-SigLIP"
    assert siglip.preprocessing["mean"] == (0.5, 0.5, 0.5)
    assert siglip.preprocessing["resize_mode"] == "squash"


def test_opening_leaves_random_numbers_and_the_log_alone(checkpoint, caplog):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    handlers, disabled = list(logging.getLogger().handlers), logging.root.manager.disable

    opened(checkpoint)

    assert torch.equal(torch.rand(3), expected)
    assert logging.getLogger().handlers == handlers
    assert logging.root.manager.disable == disabled
    assert not caplog.records


@pytest.mark.parametrize(
    ("settings", "got"), [(DualEncoder(), "neither"), (DualEncoder(path="x", scratch=Scratch()), "both")]
)
def test_exactly_one_of_path_and_scratch_is_given(settings, got):
    with pytest.raises(InputError, match=f"backbone: expected path or scratch, got {got}; give exactly one"):
        settings.build(prompt=RawPrompt())


@pytest.mark.parametrize(
    ("made", "texts", "message"),
    [
        (Scratch("clop"), ["x"], "scratch.architecture: expected a dual encoder, got 'clop'; did you mean 'clip'"),
        (Scratch(text={"widht": 3}), ["x"], "scratch.text: expected a field .* got 'widht'; did you mean 'width'"),
        (Scratch(vision={"layer": 3}), ["x"], "scratch.vision: expected a field .* got 'layer'; did you mean 'layers'"),
        (Scratch("siglip"), None, "scratch: expected texts to train a tokenizer on, got none"),
        (
            Scratch(text={"heads": 5}),
            ["x"],
            r"backbone\.scratch: expected fields .* divisible by num_heads; leave text",
        ),
        (Scratch(text={"heads": 0}), ["x"], r"backbone\.scratch: expected fields that open_clip makes a model of"),
        (Scratch(vision={"layers": "x"}), ["x"], r"backbone\.scratch: expected fields that open_clip makes a model of"),
        (Scratch("timm", vision={"timm_model_name": "nope"}), ["x"], r"backbone\.scratch: expected .* model \(nope\)"),
        (Scratch(text={"hf_tokenizer_name": "x"}), ["x"], r"backbone\.scratch: expected fields that open_clip makes"),
    ],
)
def test_an_impossible_scratch_model_is_refused_in_words(made, texts, message):
    with pytest.raises(InputError, match=message):
        DualEncoder(scratch=made).build(prompt=RawPrompt(), texts=texts)


@pytest.mark.parametrize("architecture", ["clip", "siglip", "coca", "timm"])
def test_a_scratch_model_is_drawn_whole(architecture):
    first, again = scratch(architecture), scratch(architecture)

    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert all(p.isfinite().all() for p in first.parameters())


def test_a_scratch_model_is_its_settings_and_seed():
    made = Scratch(text={"context_length": 20}, vision={"image_size": 28}, seed=3)

    first, again, other = (
        Embedder(EmbedderSettings(DualEncoder(scratch=s)), texts=None) for s in (made, made, replace(made, seed=4))
    )

    assert torch.equal(first.backbone.model.visual.proj, again.backbone.model.visual.proj)
    assert not torch.equal(first.backbone.model.visual.proj, other.backbone.model.visual.proj)
    assert first.backbone.model.context_length == 20
    assert first.backbone.preprocessor.grid == (2, 2)


def test_what_vectors_depend_on_is_told_apart(tmp_path, checkpoint):
    facts = opened(checkpoint).backbone.facts()
    others = {
        "config": write(tmp_path / "other", CLIP | {"quick_gelu": False}),
        "preprocessing": gelu(tmp_path / "squash"),
    }

    for name, directory in others.items():
        assert opened(directory).backbone.facts()[name] != facts[name]
    assert scratch("siglip").backbone.facts()["tokenizer"] != facts["tokenizer"]
    assert pickle.loads(pickle.dumps(opened(checkpoint).backbone.preprocessor)).pad == 0
