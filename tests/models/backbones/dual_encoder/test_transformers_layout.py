"""CLIP and SigLIP in transformers' layout, against transformers' own models, and what is refused of them."""

import json

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from mmembed import Embedder, Item
from mmembed.errors import InputError
from mmembed.models.settings import Sum
from tests.cases import draw
from tests.models.backbones.dual_encoder.checkpoints import opened
from tests.models.backbones.dual_encoder.transformers_layout import by_transformers, write_clip, write_siglip

TEXTS = ["a red circle", "the same but blue", "describe"]
PICTURES = [draw(56, 56), draw(84, 56), draw(60, 100)]
WRITERS = {
    "clip": write_clip,
    "a clip with the usual activation": lambda folder: write_clip(folder, hidden_act="gelu"),
    "a clip of another normalisation": lambda folder: write_clip(folder, layer_norm_eps=0.1),
    "a clip in torch's own files": lambda folder: write_clip(folder, torch_files=True),
    "siglip": write_siglip,
}


def edit(file, **changes):
    values = json.loads(file.read_text())
    for path, value in changes.items():
        *parts, name = path.split("__")
        inner = values
        for part in parts:
            inner = inner[part]
        inner[name] = value
    file.write_text(json.dumps(values))


@pytest.mark.parametrize("name", WRITERS)
def test_texts_and_pictures_embed_as_by_transformers(name, tmp_path):
    WRITERS[name](tmp_path / "checkpoint")

    ours = opened(tmp_path / "checkpoint").encode([*TEXTS, *PICTURES])

    theirs = by_transformers(tmp_path / "checkpoint", TEXTS, PICTURES)
    assert torch.allclose(ours, theirs, atol=1e-6, rtol=0)
    assert torch.pdist(theirs).min() > 1e-2


@pytest.mark.parametrize("size", [(59, 56), (56, 59), (63, 56), (57, 56), (200, 77)])
def test_a_picture_is_cropped_as_by_transformers_where_it_is_asked_for(size, tmp_path):
    write_clip(tmp_path / "checkpoint")
    picture = draw(*size)

    ours = opened(tmp_path / "checkpoint", transform="transformers").encode([picture])

    theirs = by_transformers(tmp_path / "checkpoint", pictures=[picture])
    assert torch.allclose(ours, theirs, atol=1e-6, rtol=0)
    # three pixels are cut two and one by open_clip, and one and two by transformers
    as_usual = torch.allclose(opened(tmp_path / "checkpoint").encode([picture]), theirs, atol=1e-6, rtol=0)
    assert as_usual == (size not in ((59, 56), (56, 59), (63, 56)))


def test_an_end_token_that_openai_named_wrong_is_told_by_its_height(tmp_path):
    write_clip(tmp_path / "checkpoint")
    theirs = by_transformers(tmp_path / "checkpoint", TEXTS)
    tokenizer = json.loads((tmp_path / "checkpoint/tokenizer.json").read_text())
    highest = max(tokenizer["model"]["vocab"].values())
    edit(tmp_path / "checkpoint/config.json", text_config__eos_token_id=2)
    _swap(tmp_path / "checkpoint", 1, highest)

    ours = opened(tmp_path / "checkpoint").encode(TEXTS)

    assert torch.allclose(ours, theirs, atol=1e-6, rtol=0)


def _swap(folder, one, other):
    """Exchange two tokens' ids, and their rows of the table."""
    said = json.loads((folder / "tokenizer.json").read_text())
    new = {one: other, other: one}
    vocabulary = said["model"]["vocab"]
    said["model"]["vocab"] = {word: new.get(number, number) for word, number in vocabulary.items()}
    for token in said["added_tokens"]:
        token["id"] = new.get(token["id"], token["id"])
    for token in said["post_processor"]["special_tokens"].values():
        token["ids"] = [new.get(number, number) for number in token["ids"]]
    (folder / "tokenizer.json").write_text(json.dumps(said))
    weights = load_file(folder / "model.safetensors")
    table = weights["text_model.embeddings.token_embedding.weight"]
    table[[one, other]] = table[[other, one]]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def test_punctuation_is_nothing_to_siglip(tmp_path):
    write_siglip(tmp_path / "checkpoint")

    a, b = opened(tmp_path / "checkpoint").encode(["The same, but blue!", "the same but blue"])

    assert torch.equal(a, b)


def test_the_vectors_as_they_are_make_up_a_picture_with_text(tmp_path):
    write_clip(tmp_path / "checkpoint")
    item = {"image": PICTURES[0], "text": TEXTS[0]}

    ours = opened(tmp_path / "checkpoint", pooler=Sum(normalize="after")).encode(item)

    model = opened(tmp_path / "checkpoint")
    parts = model.backbone.run(model.backbone.texts([TEXTS[0]])).states
    tiles = model.prepare([Item.of(PICTURES[0])], "query")[0].media[0].pixels[:, :, 0]
    with torch.no_grad():
        image = model.backbone.model.encode_image((tiles / 255 - model.backbone.mean) / model.backbone.std)
    assert torch.allclose(ours, F.normalize(parts + image, dim=-1), atol=1e-6)


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_what_is_saved_opens_with_the_same_bits(name, tmp_path):
    WRITERS[name](tmp_path / "checkpoint")
    first = opened(tmp_path / "checkpoint")

    first.save(tmp_path / "saved")

    again = Embedder.from_pretrained(tmp_path / "saved", device="cpu")
    assert torch.equal(again.encode([*TEXTS, *PICTURES]), first.encode([*TEXTS, *PICTURES]))
    assert (tmp_path / "saved/open_clip_config.json").is_file()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"text_config__hidden_act": "gelu"}, "hidden_act: expected one activation for both towers"),
        ({"vision_config__hidden_act": "relu", "text_config__hidden_act": "relu"}, "hidden_act: expected gelu, quick"),
        ({"text_config__num_hidden_layers": 3}, r"12 missing: transformer\.resblocks\.2\.attn\.in_proj_bias"),
    ],
)
def test_a_clip_that_open_clip_cannot_be_is_refused(change, problem, tmp_path):
    write_clip(tmp_path / "checkpoint")
    edit(tmp_path / "checkpoint/config.json", **change)

    with pytest.raises(InputError, match=problem):
        opened(tmp_path / "checkpoint")


def test_a_siglip_of_sizes_that_timm_does_not_have_is_refused(tmp_path):
    write_siglip(tmp_path / "checkpoint")
    edit(tmp_path / "checkpoint/config.json", vision_config__num_attention_heads=2)

    with pytest.raises(InputError, match="vision_config: expected sizes that timm has: vit_tiny_patch14"):
        opened(tmp_path / "checkpoint")


def test_another_resize_is_refused(tmp_path):
    write_clip(tmp_path / "checkpoint")
    edit(tmp_path / "checkpoint/preprocessor_config.json", resample=1)

    with pytest.raises(InputError, match="resample: expected 2 or 3, bilinear or bicubic, got 1"):
        opened(tmp_path / "checkpoint")


def test_a_repository_without_weights_is_refused(tmp_path):
    write_clip(tmp_path / "checkpoint")
    (tmp_path / "checkpoint/model.safetensors").unlink()

    with pytest.raises(InputError, match=r"pytorch_model\.bin|model\.safetensors: expected weights, got no such file"):
        opened(tmp_path / "checkpoint")
