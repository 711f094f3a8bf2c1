"""Checkpoints in the published layout: opened whatever their age, refused in words, and written again."""

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, Phi3Config, Phi3Model

from mmembed import Item
from mmembed.errors import InputError
from mmembed.models.backbones.phi3_v.backbone import PHI3_V
from mmembed.models.backbones.phi3_v.config import CLIP_LARGE, Phi3VConfig, tower_sizes
from mmembed.models.backbones.phi3_v.model import Phi3VModel
from mmembed.models.checkpoint import open_checkpoint
from mmembed.models.settings import Phi3V, RawPrompt

TOKENS, COPY = "model.embed_tokens.weight", "model.vision_embed_tokens.wte.weight"


def weights_of(path):
    return dict(open_checkpoint(str(path), PHI3_V).model.named_parameters())


def equal(ours, theirs):
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_every_published_weight_is_opened(copy):
    ours = weights_of(copy)

    theirs = load_file(copy / "model.safetensors")
    named = {
        key.removeprefix("model.").replace("img_processor.vision_model.", "img_processor."): value
        for key, value in theirs.items()
        if key not in (COPY, "lm_head.weight")
    }
    assert equal(ours, named)


@pytest.mark.parametrize("kept", [{TOKENS}, {COPY}, {TOKENS, COPY}], ids=["embed_tokens", "wte", "both"])
def test_token_embeddings_are_found_under_either_name(kept, copy, edit_weights):
    before = weights_of(copy)

    edit_weights(lambda weights: [weights.pop(name) for name in {TOKENS, COPY} - kept])

    assert equal(weights_of(copy), before)


@pytest.mark.parametrize(
    ("gone", "named"),
    [
        ({TOKENS, COPY}, r"1 missing: embed_tokens\.weight"),
        ({"model.vision_embed_tokens.sub_GN"}, r"1 missing: vision_embed_tokens\.sub_GN"),
        ({"model.layers.1.mlp.down_proj.weight"}, r"1 missing: layers\.1\.mlp\.down_proj\.weight"),
    ],
)
def test_a_missing_weight_is_named(gone, named, copy, edit_weights):
    edit_weights(lambda weights: [weights.pop(name) for name in gone])

    with pytest.raises(InputError, match=rf"expected exactly the weights of its config, got {named}"):
        weights_of(copy)


def test_an_unexpected_weight_is_named(copy, edit_weights):
    edit_weights(lambda weights: weights.update({"model.vision_embed_tokens.extra": torch.ones(2)}))

    with pytest.raises(InputError, match=r"1 unexpected: .*vision_embed_tokens\.extra"):
        weights_of(copy)


def test_files_in_shards_open_to_the_same_bits(copy, shards):
    before = weights_of(copy)

    shards()

    assert len(list(copy.glob("model-*.safetensors"))) > 2
    assert equal(weights_of(copy), before)


@pytest.fixture
def shards(copy):
    """Write the copy's weights as several files."""

    def write():
        model = open_checkpoint(str(copy), PHI3_V).model
        (copy / "model.safetensors").unlink()
        config = (copy / "config.json").read_text()
        model.save_pretrained(copy, max_shard_size="200KB")
        (copy / "config.json").write_text(config)

    return write


@pytest.mark.parametrize("lost", ["first", "last"])
def test_a_half_downloaded_checkpoint_is_refused_in_words(lost, copy, shards):
    shards()
    files = sorted(copy.glob("model-*.safetensors"))
    files[0 if lost == "first" else -1].unlink()

    with pytest.raises(InputError, match=r"checkpoint: expected a checkpoint with .* got .*model-0000.*safetensors"):
        weights_of(copy)


def test_a_cut_file_is_refused_in_words(copy):
    data = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(data[: len(data) // 2])

    with pytest.raises(InputError, match="expected whole safetensors files"):
        weights_of(copy)


def test_a_checkpoint_without_its_tokenizer_is_refused_in_words(copy):
    (copy / "tokenizer.json").unlink()

    with pytest.raises(InputError, match=r"checkpoint: expected tokenizer\.json, got none"):
        weights_of(copy)


def test_another_kind_of_model_is_refused(tmp_path):
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    Phi3Model(Phi3Config(vocab_size=40, pad_token_id=0, **small)).save_pretrained(tmp_path)
    message = "model_type: expected a Phi-3.5-vision checkpoint, got 'phi3'; did you mean 'phi3_v'"

    with pytest.raises(InputError, match=message):
        Phi3V(path=str(tmp_path)).build(prompt=RawPrompt())


def test_pictures_laid_out_otherwise_are_refused(copy, edit_json):
    layout = json.loads((copy / "config.json").read_text())["embd_layer"]
    edit_json("config.json", embd_layer=layout | {"hd_transform_order": "glb_sub"})

    with pytest.raises(InputError, match=r"embd_layer: expected .*sub_glb.*, got .*glb_sub"):
        weights_of(copy)


def test_code_that_a_checkpoint_points_to_is_neither_run_nor_passed_on(copy, edit_json, open_copy, tmp_path):
    edit_json("config.json", auto_map={"AutoConfig": "evil.Config", "AutoModel": "evil.Model"})
    edit_json("tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.Tokenizer", None]})
    (copy / "evil.py").write_text("raise SystemExit('remote code ran')")

    open_copy(copy).save(tmp_path / "saved")

    assert "auto_map" not in json.loads((tmp_path / "saved/config.json").read_text())


def test_the_published_config_means_clip_large():
    config = Phi3VConfig(pad_token_id=0)

    assert {name: getattr(config.vision_config, name) for name in CLIP_LARGE} == CLIP_LARGE
    assert config.vision_config.hidden_act == "quick_gelu"


def test_the_sizes_of_clip_large_are_read_from_its_weights():
    prefix = "model.vision_embed_tokens.img_processor.vision_model."
    shapes = {
        "embeddings.patch_embedding.weight": (1024, 3, 14, 14),
        "embeddings.position_embedding.weight": (577, 1024),
        **{f"encoder.layers.{i}.mlp.fc1.weight": (4096, 1024) for i in range(24)},
    }

    assert tower_sizes({prefix + name: shape for name, shape in shapes.items()}) == CLIP_LARGE


@pytest.fixture
def saved(fresh_small, tmp_path):
    embedder = fresh_small().eval()
    embedder.save(tmp_path / "saved")
    return embedder, tmp_path / "saved"


def test_a_saved_model_opens_to_the_same_bits(saved, picture):
    embedder, path = saved
    items = [Item.of("a red circle"), Item.of({"image": picture(84, 56), "text": "blue"}, "Represent.")]

    opened = type(embedder).from_pretrained(path, device="cpu")

    assert equal(dict(opened.named_parameters()), dict(embedder.named_parameters()))
    assert torch.equal(opened.encode(items), embedder.encode(items))
    assert opened.backbone.model.config.rope_parameters == embedder.backbone.model.config.rope_parameters


def test_what_is_saved_has_the_published_names(copy, open_copy, tmp_path):
    published = load_file(copy / "model.safetensors")
    open_copy(copy).save(tmp_path / "saved")

    ours = load_file(tmp_path / "saved/model.safetensors")

    assert equal(ours, {name: value for name, value in published.items() if name not in (COPY, "lm_head.weight")})


def test_a_saved_config_still_has_the_published_fields(copy, open_copy, tmp_path):
    published = json.loads((copy / "config.json").read_text())
    open_copy(copy).save(tmp_path / "saved")

    ours = json.loads((tmp_path / "saved/config.json").read_text())

    names = ("architectures", "model_type", "rope_scaling", "rope_theta", "img_processor", "embd_layer")
    assert {name: ours[name] for name in names} == {name: published[name] for name in names}


def test_transformers_itself_opens_a_saved_model_to_the_same_weights(saved):
    embedder, path = saved

    model, info = AutoModel.from_pretrained(path, output_loading_info=True)

    assert isinstance(model, Phi3VModel)
    assert not any(info[problem] for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert equal(dict(model.named_parameters()), dict(embedder.backbone.model.named_parameters()))
