"""Dual encoders against open_clip and timm themselves, and their items against each other."""

import json
import random
from dataclasses import replace

import open_clip
import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.numpy import load_file as load_arrays
from safetensors.torch import save_file

from mmembed import Item
from mmembed.counters import counting
from mmembed.errors import InputError
from mmembed.models.identity import identity
from mmembed.models.sequence import collate
from mmembed.models.settings import Lora, Slerp, Sum, TimmTower
from tests.models.backbones.dual_encoder.checkpoints import (
    MAKERS,
    MAPPING,
    by_open_clip,
    opened,
    published,
    quick_gelu,
    resnet,
    scratch,
)

ARCHITECTURES = ("clip", "siglip", "coca", "timm")
TEXTS = ["a red circle", "The same, but BLUE!", "x", "a much longer text about circles " * 3, "word " * 100]


@pytest.fixture
def items(mixed_items, picture):
    return [*mixed_items, Item.of(picture(84, 56))]


@pytest.mark.parametrize("name", MAKERS)
def test_texts_and_pictures_equal_what_open_clip_makes_of_them(name, tmp_path, picture):
    directory = MAKERS[name](tmp_path / "checkpoint")
    pictures = [picture(60, 40), picture(40, 90), picture(56, 56), picture(300, 31)]

    ours = opened(directory).encode([*TEXTS, *pictures])

    theirs = by_open_clip(directory, TEXTS, pictures)
    assert (ours - theirs).abs().max() <= 1e-6
    # a model that made the same of everything would pass
    assert ((ours[0] - ours[1:]).norm(dim=-1) > 0.05).all()


@pytest.mark.parametrize("group", ["plain", "lincir_org", "searle"])
def test_text_vectors_equal_the_published_ones(group, tmp_path):
    model = opened(published(tmp_path / "checkpoint"))
    texts = json.loads((MAPPING / "inputs.json").read_text())["texts"][group]

    ours = model.encode(texts)

    theirs = F.normalize(torch.tensor(load_arrays(MAPPING / "golden.safetensors")[f"encode_text.{group}"]), dim=-1)
    assert (ours - theirs).abs().max() <= 1e-6


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_an_embedding_does_not_depend_on_its_batch(architecture, items):
    embedder = scratch(architecture)
    alone = torch.cat([embedder.encode([item], batch_tokens=1) for item in items])
    order = random.Random(0).sample(range(len(items)), len(items))

    for batch_tokens in (1, 40, 90, 10**6):
        together = embedder.encode([items[i] for i in order], batch_tokens=batch_tokens)
        assert torch.allclose(together, alone[order], atol=1e-5, rtol=0)


def test_batch_normalisation_does_not_look_at_the_batch_in_training_either(tmp_path, items):
    embedder = opened(resnet(tmp_path / "checkpoint")).train()
    rows = embedder.prepare(items, "query")

    with torch.no_grad():
        together = embedder(collate(rows))
        alone = torch.cat([embedder(collate([row])) for row in rows])

    assert (together - alone).abs().max() <= 1e-5


@pytest.mark.parametrize("pooler", [Sum(), Sum(0.3, "after"), Slerp(0.3)])
def test_an_item_of_both_is_composed_of_open_clips_two_vectors(pooler, tmp_path, picture):
    directory = quick_gelu(tmp_path / "checkpoint")

    composed = opened(directory, pooler=pooler).encode({"image": picture(60, 40), "text": "a dog"})[0]

    model, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{directory}")
    with torch.no_grad():
        v = model.encode_image(preprocess(picture(60, 40))[None])[0]
        t = model.encode_text(open_clip.get_tokenizer(f"local-dir:{directory}")(["a dog"]))[0]
    unit_v, unit_t = F.normalize(v, dim=-1), F.normalize(t, dim=-1)
    angle = torch.acos(unit_v @ unit_t)
    expected = {
        Sum(): unit_v + unit_t,
        Sum(0.3, "after"): 0.3 * v + 0.7 * t,
        Slerp(0.3): torch.sin(0.7 * angle) * unit_v + torch.sin(0.3 * angle) * unit_t,
    }[pooler]
    assert torch.allclose(composed, F.normalize(expected, dim=-1), atol=2e-6)


@pytest.mark.parametrize("frames", ["normalised_mean", "mean"])
def test_a_clip_is_the_mean_of_its_frames_and_pictures_the_mean_of_theirs(frames, picture):
    embedder = scratch("clip", frames=frames)
    # frames whose vectors differ in length, or the two means would be one
    pictures = [picture(56, 56, 1), picture(8, 8, 2).resize((56, 56)), picture(1, 1, 3).resize((56, 56))]
    raw = embedder.backbone.vision(collate(embedder.prepare([Item.of(p) for p in pictures], "query"))).maps
    vectors = torch.cat(raw).detach()
    mean, other = vectors.mean(0), F.normalize(vectors, dim=-1).mean(0)
    if frames == "normalised_mean":
        mean, other = other, mean

    clip, several = embedder.encode([Item.of({"video": pictures}), Item.of({"image": pictures})])

    assert (F.normalize(mean, dim=-1) - F.normalize(other, dim=-1)).abs().max() > 1e-4
    assert torch.allclose(clip, F.normalize(mean, dim=-1), atol=1e-6)
    assert torch.allclose(several, clip, atol=1e-6)


def test_a_mean_of_directions_keeps_the_length_that_a_plain_sum_needs(picture):
    embedder = scratch("clip")
    twice = Item.of({"image": [picture(56, 56), picture(56, 56)], "text": "a dog"})

    hidden = [
        embedder.backbone.run(embedder.backbone.embed(batch, embedder.backbone.vision(batch)))
        for batch in map(
            collate,
            ([row] for row in embedder.prepare([Item.of({"image": picture(56, 56), "text": "a dog"}), twice], "query")),
        )
    ]

    assert torch.allclose(hidden[0].states, hidden[1].states, rtol=1e-5)


def test_equal_pictures_pass_the_tower_once_and_texts_are_not_padded_to_the_context(picture):
    items = ["a dog", {"image": picture(56, 56)}, {"image": picture(56, 56), "text": "a cat"}, "a dog"]

    with counting() as work:
        scratch("clip").encode(items, batch_tokens=10**6)

    assert work["tower_forwards"] == 1
    assert work["language_rows"] == 2
    assert work["padded_tokens"] == work["language_tokens"] == 8


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_step_moves_every_weight_that_trains_and_no_other(architecture, checkpointing, items):
    embedder = scratch(architecture, gradient_checkpointing=checkpointing).train()
    batch = collate(embedder.prepare(items, "query"))
    before = {name: p.detach().clone() for name, p in embedder.named_parameters()}
    optimizer = torch.optim.Adam([p for p in embedder.parameters() if p.requires_grad], lr=1e-3)

    (embedder(batch) * torch.randn(len(items), embedder.width)).sum().backward()
    optimizer.step()

    moved = {name for name, p in embedder.named_parameters() if not torch.equal(p, before[name])}
    loss_only = ("backbone.model.logit_", "backbone.model.text_decoder.")
    assert moved == {name for name in before if not name.startswith(loss_only)}
    assert moved == embedder.trainable


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_recomputed_activations_give_the_same_gradients(architecture, items):
    gradients = []
    for checkpointing in (False, True):
        embedder = scratch(architecture, gradient_checkpointing=checkpointing).train()
        (embedder(collate(embedder.prepare(items, "query"))) ** 3).sum().backward()
        gradients.append({name: p.grad for name, p in embedder.named_parameters() if p.requires_grad})

    assert all(torch.allclose(grad, gradients[1][name], atol=1e-6) for name, grad in gradients[0].items())


def test_a_tower_that_cannot_recompute_its_activations_is_refused_in_words(tmp_path):
    directory = resnet(tmp_path / "checkpoint")

    with pytest.raises(InputError, match=r"gradient_checkpointing: .* got ModifiedResNet; leave it out"):
        opened(directory, gradient_checkpointing=True)


@pytest.fixture
def timm_weights(tmp_path):
    torch.manual_seed(3)
    model = timm.create_model("test_vit")
    save_file(model.state_dict(), tmp_path / "timm.safetensors")
    model.reset_classifier(0)
    return tmp_path / "timm.safetensors", model.eval()


def test_a_timm_model_takes_the_place_of_the_image_tower(tmp_path, timm_weights, picture):
    directory = quick_gelu(tmp_path / "checkpoint")
    file, trunk = timm_weights

    embedder = opened(directory, image_tower=TimmTower("test_vit", path=str(file)))

    pixels = embedder.prepare([Item.of(picture(200, 160))], "query")[0].media[0].pixels
    assert pixels.shape == (1, 3, 1, 160, 160)
    with torch.no_grad():
        features = trunk((pixels[:, :, 0] / 255 - 0.5) / 0.5)
        projected = features @ embedder.backbone.model.visual.head.proj.weight.T
    assert torch.allclose(embedder.encode(picture(200, 160)), F.normalize(projected, dim=-1), atol=1e-6)
    assert torch.allclose(embedder.encode("a dog"), by_open_clip(directory, ["a dog"]), atol=1e-6)


def test_a_timm_tower_is_saved_as_it_was_trained(tmp_path, timm_weights, picture):
    tower = TimmTower("test_vit", path=str(timm_weights[0]))
    embedder = opened(quick_gelu(tmp_path / "checkpoint"), image_tower=tower)
    for parameter in embedder.backbone.tower.parameters():
        parameter.data += 0.01
    items = [picture(60, 40), {"image": picture(40, 60), "text": "a dog"}]

    embedder.save(tmp_path / "saved")

    again = type(embedder).from_pretrained(tmp_path / "saved", device="cpu")
    assert torch.equal(again.encode(items), embedder.encode(items))
    assert identity(again) == identity(embedder)
    theirs = by_open_clip(tmp_path / "saved", pictures=[picture(60, 40)])
    assert torch.allclose(embedder.encode(picture(60, 40)), theirs, atol=1e-6)


def test_an_adapter_beside_a_new_image_tower_opens_with_the_same_projection(tmp_path, timm_weights, picture):
    base = {"image_tower": TimmTower("test_vit", path=str(timm_weights[0]))}
    embedder = opened(quick_gelu(tmp_path / "checkpoint"), lora=Lora(r=4, targets=("c_fc", "c_proj")), **base)

    embedder.save(tmp_path / "saved")

    again = type(embedder).from_pretrained(tmp_path / "saved", device="cpu")
    assert torch.equal(again.encode(picture(60, 40)), embedder.encode(picture(60, 40)))


def test_an_image_tower_takes_the_place_of_one_of_its_own_name(tmp_path, timm_weights, picture):
    directory = scratch("timm")
    directory.save(tmp_path / "saved")

    embedder = opened(tmp_path / "saved", image_tower=TimmTower("test_vit", path=str(timm_weights[0])))

    trunk = embedder.backbone.tower.trunk
    assert directory.backbone.checkpoint.config["vision_cfg"]["timm_model_name"] == "test_vit"
    assert all(torch.equal(p, dict(trunk.named_parameters())[name]) for name, p in timm_weights[1].named_parameters())


def half_of(path):
    half = path.with_name("half.safetensors")
    half.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return TimmTower("test_vit", path=str(half))


@pytest.mark.parametrize(
    ("tower", "message"),
    [
        (lambda path: TimmTower("test_vitt"), "image_tower.model: expected a model that timm knows.* mean 'test_vit'"),
        (lambda path: TimmTower("test_resnet", path=str(path)), "expected the weights of timm's test_resnet"),
        (lambda path: TimmTower("test_vit", path="tower.pth"), "image_tower.path: expected a safetensors file"),
        (
            lambda path: TimmTower("test_vit", path="/nowhere.safetensors"),
            r"/nowhere\.safetensors: .* got no such file",
        ),
        (lambda path: TimmTower("test_vit"), r"image_tower\.pretrained: expected timm's weights of test_vit"),
        (lambda path: TimmTower("botnet50ts_256"), r"image_tower\.pretrained: expected timm's weights .* got none"),
        (half_of, r"half\.safetensors: expected the weights of timm's test_vit"),
    ],
)
def test_an_unusable_timm_tower_is_refused_in_words(tower, message, tmp_path, timm_weights, caplog):
    directory = quick_gelu(tmp_path / "checkpoint")
    caplog.clear()

    with pytest.raises(InputError, match=message):
        opened(directory, image_tower=tower(timm_weights[0]))
    with pytest.raises(InputError, match=message):
        scratch(image_tower=tower(timm_weights[0]))
    assert not caplog.records


def drawn(embedder):
    """The weights that a seed decides: of the image tower's trunk and projection, and of the rest."""
    weights = embedder.backbone.model.state_dict()
    return weights["visual.trunk.cls_token"], weights["visual.head.proj.weight"], weights["token_embedding.weight"]


def alike(first, other):
    return [torch.equal(a, b) for a, b in zip(drawn(first), drawn(other), strict=True)]


@pytest.mark.parametrize("make", ["scratch", "checkpoint"])
def test_the_seed_of_an_image_tower_draws_it_and_nothing_else(make, tmp_path, timm_weights):
    directory = quick_gelu(tmp_path / "checkpoint")
    tower, path = TimmTower("test_vit", pretrained=False), str(timm_weights[0])

    def embedder(tower):
        torch.manual_seed(tower.seed)
        return scratch(image_tower=tower) if make == "scratch" else opened(directory, image_tower=tower)

    first = embedder(tower)
    assert alike(first, embedder(tower)) == [True, True, True]
    assert alike(first, embedder(replace(tower, seed=1))) == [False, False, True]
    of_file = replace(tower, path=path)
    assert alike(embedder(of_file), embedder(replace(of_file, seed=1))) == [True, False, True]


def test_the_seed_of_a_scratch_model_leaves_its_image_tower_as_it_is():
    tower = TimmTower("test_vit", pretrained=False)
    first = scratch(image_tower=tower)

    assert alike(first, scratch(seed=1, image_tower=tower)) == [True, True, False]
    assert alike(first, scratch(seed=1, image_tower=replace(tower, seed=1))) == [False, False, False]


def test_an_image_tower_leaves_the_callers_random_state_alone(timm_weights):
    before = torch.get_rng_state()

    scratch(image_tower=TimmTower("test_vit", path=str(timm_weights[0])))

    assert torch.equal(torch.get_rng_state(), before)


def test_an_adapter_trains_alone_and_opens_again(tmp_path, items):
    lora = Lora(r=4, targets=("c_fc", "c_proj"), dropout=0.0)
    embedder = opened(quick_gelu(tmp_path / "checkpoint"), lora=lora).train()
    batch = collate(embedder.prepare(items, "query"))
    before = {name: p.detach().clone() for name, p in embedder.named_parameters()}
    optimizer = torch.optim.Adam([p for p in embedder.parameters() if p.requires_grad], lr=1e-2)

    for _ in range(2):
        optimizer.zero_grad()
        (embedder(batch) * torch.arange(embedder.width)).sum().backward()
        optimizer.step()
    embedder.save(tmp_path / "saved")

    moved = {name for name, p in embedder.named_parameters() if not torch.equal(p, before[name])}
    assert moved == embedder.trainable == {name for name in before if "lora_" in name}
    assert {"visual" in name for name in moved} == {True, False}
    again = type(embedder).from_pretrained(tmp_path / "saved", device="cpu")
    assert torch.allclose(again.encode(items), embedder.eval().encode(items), atol=1e-6)
    plain = opened(tmp_path / "checkpoint").encode(items)
    assert (again.encode(items) - plain).abs().max() > 0.01


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (Lora().targets, r"got visual\.transformer\.resblocks\.0\.attn\.out_proj, a fused attention; name the layers"),
        (("attn",), r"got visual\.transformer\.resblocks\.0\.attn, a fused attention; name the layers beside it"),
        (("nothing",), "lora.targets: expected suffixes of linear layers"),
    ],
)
def test_an_adapter_that_would_do_nothing_is_refused_in_words(targets, message, tmp_path):
    directory = quick_gelu(tmp_path / "checkpoint")

    with pytest.raises(InputError, match=message):
        opened(directory, lora=Lora(targets=targets))
