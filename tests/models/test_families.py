"""What every family of backbones promises, each on a small random model of the real architecture."""

import random
import shutil
from dataclasses import replace
from functools import cache

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers.utils import is_flash_attn_2_available

from mmembed import Embedder, Item
from mmembed.errors import InputError
from mmembed.models.adapters import add_lora
from mmembed.models.identity import identity
from mmembed.models.sequence import collate
from mmembed.models.settings import BackboneSettings, Lora
from mmembed.settings import subclasses
from tests.families import CLIPS, FAMILIES, LANGUAGE, READS_PICTURES, family_embedder, opened

KERNELS = ("sdpa", "eager")
PADDING = {"without padding": [0, 0], "with padding": [0, 1]}
ASKED = [(name, policy) for name in LANGUAGE for policy in FAMILIES[name].policies]


@pytest.fixture(scope="module")
def embedder_of():
    """One embedder for each choice, in evaluation mode; never train it."""
    return cache(lambda name, **choices: family_embedder(name, **choices).eval())


@pytest.fixture(scope="module")
def saved(tmp_path_factory, embedder_of):
    """The directory of a saved small model."""

    @cache
    def save(name, **choices):
        directory = tmp_path_factory.mktemp("families") / name
        embedder_of(name, **choices).save(directory)
        return directory

    return save


def lora_of(name):
    lora = Lora(r=4, alpha=8, dropout=0.0)
    targets = FAMILIES[name].targets
    return replace(lora, targets=targets) if targets else lora


def test_the_table_of_parts_has_every_family_and_each_is_tried_here():
    assert set(subclasses(BackboneSettings).values()) == {small.kind for small in FAMILIES.values()}


@pytest.mark.parametrize("name", FAMILIES)
def test_an_embedding_depends_on_nothing_but_its_item(name, embedder_of):
    embedder, items = embedder_of(name), FAMILIES[name].items
    alone = torch.cat([embedder.encode([item], batch_tokens=1) for item in items])
    order = random.Random(0).sample(range(len(items)), len(items))

    assert torch.pdist(alone).min() > 1e-3
    for batch_tokens in (1, 100, 10**6):
        shuffled = embedder.encode([items[i] for i in order], batch_tokens=batch_tokens)
        assert torch.allclose(shuffled, alone[order], atol=1e-5, rtol=0)
    together = embedder(collate(embedder.prepare(items, "query"))).detach()
    assert torch.allclose(together, alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", LANGUAGE)
def test_the_padding_side_moves_no_embedding(name, embedder_of):
    items = FAMILIES[name].items
    ours = [
        embedder(collate(embedder.prepare(items, "query"))).detach()
        for embedder in (embedder_of(name), embedder_of(name, padding_side="left"))
    ]

    assert torch.allclose(*ours, atol=1e-5, rtol=0)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(("name", "policy"), ASKED)
def test_the_last_token_reaches_the_first_state_only_where_attention_is_bidirectional(
    name, policy, kernel, side, embedder_of
):
    embedder = embedder_of(name, attention_policy=policy, attention=kernel, padding_side=side)
    items = FAMILIES[name].items[:4]
    for chosen in ([items[0]] * 2, items):
        sequence = embedder.backbone.embed(*embedded(embedder, chosen))
        ends = sequence.lengths.cumsum(0)
        changed = sequence.embeds.clone()
        changed[ends - 1] += torch.randn(changed.shape[1])

        with torch.no_grad():
            before, after = (embedder.backbone.run(s).states for s in (sequence, replace(sequence, embeds=changed)))

        moved = (before - after).abs().amax(1)
        first = moved[ends - sequence.lengths]
        assert (moved[ends - 1] > 1e-3).all()
        assert (first > 1e-6).all() if policy == "bidirectional" else (first == 0).all()


def embedded(embedder, items):
    batch = collate(embedder.prepare(items, "query"))
    with torch.no_grad():
        return batch, embedder.backbone.vision(batch)


@pytest.mark.parametrize(("name", "policy"), ASKED)
def test_the_kernels_agree_under_every_policy(name, policy, embedder_of):
    items = FAMILIES[name].items
    ours = [embedder_of(name, attention_policy=policy, attention=kernel).encode(items) for kernel in KERNELS]

    assert torch.allclose(*ours, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("name", "policy"), [pair for pair in ASKED if pair[1] != "causal"])
def test_batch_mates_move_no_embedding_under_any_policy(name, policy, embedder_of):
    embedder, items = embedder_of(name, attention_policy=policy), FAMILIES[name].items
    alone = torch.cat([embedder.encode([item]) for item in items])

    assert torch.allclose(embedder(collate(embedder.prepare(items, "query"))).detach(), alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", READS_PICTURES)
def test_a_literal_placeholder_beside_a_picture_is_an_ordinary_token(name, embedder_of):
    embedder = embedder_of(name)
    words = " ".join(getattr(embedder.backbone.preprocessor, "words", {}).values())
    picture = FAMILIES[name].items[3].content[0]
    items = [Item.of(f"what does {words} mean?"), Item((picture, f"and {words}?"))]

    together = embedder(collate(embedder.prepare(items, "query"))).detach()

    assert torch.allclose(together, torch.cat([embedder.encode([item]) for item in items]), atol=1e-5, rtol=0)


def step(embedder, items):
    """One step of gradient descent; the names of the weights that may move, and of those that did."""
    before = {name: p.detach().clone() for name, p in embedder.named_parameters()}
    embedder.train()
    vectors = embedder(collate(embedder.prepare(items, "query")))
    (vectors * torch.randn(vectors.shape, generator=torch.Generator().manual_seed(1))).sum().backward()
    torch.optim.SGD([p for p in embedder.parameters() if p.requires_grad], lr=1.0).step()
    moved = {name for name, p in embedder.named_parameters() if not torch.equal(p, before[name])}
    return {name for name, p in embedder.named_parameters() if p.requires_grad}, moved


@pytest.mark.parametrize("checkpointing", [False, True], ids=["", "checkpointing"])
@pytest.mark.parametrize("name", FAMILIES)
def test_one_step_moves_every_trainable_weight_and_no_other(name, checkpointing):
    embedder = family_embedder(name, gradient_checkpointing=checkpointing)

    trainable, moved = step(embedder, FAMILIES[name].items)

    assert moved == trainable == embedder.trainable
    frozen = {n for n, _ in embedder.named_parameters()} - trainable
    assert all(n.removeprefix("backbone.model.").startswith(embedder.backbone.unused) for n in frozen)


@pytest.mark.parametrize("checkpointing", [False, True], ids=["", "checkpointing"])
@pytest.mark.parametrize("name", FAMILIES)
def test_one_step_moves_every_weight_of_an_adapter_and_no_other(name, checkpointing, saved):
    embedder = opened(name, saved(name), lora=lora_of(name), gradient_checkpointing=checkpointing)
    perturb(embedder)

    trainable, moved = step(embedder, FAMILIES[name].items)

    assert moved == trainable
    assert trainable
    assert all("lora_" in name for name in trainable)


def perturb(embedder):
    """Take the adapter from where training begins: with one factor zero the other has no gradient."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, p in embedder.named_parameters():
            if "lora_B" in name:
                p.add_(torch.randn(p.shape, generator=generator) * 0.05)


@pytest.mark.parametrize("name", FAMILIES)
def test_gradient_checkpointing_gives_the_same_gradients(name):
    gradients = []
    for checkpointing in (False, True):
        embedder = family_embedder(name, gradient_checkpointing=checkpointing).train()
        embedder(collate(embedder.prepare(FAMILIES[name].items, "query")))[:, :9].sum().backward()
        gradients.append({n: p.grad for n, p in embedder.named_parameters() if p.grad is not None})

    plain, checkpointed = gradients
    assert plain.keys() == checkpointed.keys()
    for n, g in plain.items():
        assert torch.allclose(checkpointed[n], g, rtol=1e-4, atol=1e-5 * max(1.0, g.abs().max().item())), n


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


@pytest.mark.parametrize("name", FAMILIES)
def test_a_saved_model_opens_to_the_same_bits(name, saved, embedder_of, tmp_path):
    embedder, items = embedder_of(name), FAMILIES[name].items

    again = Embedder.from_pretrained(saved(name), device="cpu")
    again.save(tmp_path / "again")
    twice = Embedder.from_pretrained(tmp_path / "again", device="cpu")

    for model in (again, twice):
        assert torch.equal(model.encode(items), embedder.encode(items))
        weights = dict(embedder.named_parameters())
        assert all(torch.equal(p, weights[n]) for n, p in model.named_parameters())


@pytest.mark.parametrize("name", LANGUAGE)
def test_an_adapter_trains_on_a_base_in_four_bits(name, saved):
    from bitsandbytes.nn import Linear4bit

    embedder = opened(name, saved(name), lora=lora_of(name), quantize="nf4", gradient_checkpointing=True)
    perturb(embedder)
    small = {n for n, module in embedder.backbone.model.named_modules() if isinstance(module, Linear4bit)}
    tower = {n for n, module in embedder.backbone.tower.named_modules() if isinstance(module, Linear4bit)}

    trainable, moved = step(embedder, FAMILIES[name].items)

    assert small
    assert not (tower and FAMILIES[name].pictures)
    assert moved == trainable
    assert all("lora_" in n for n in trainable)


@pytest.mark.parametrize("name", [name for name in FAMILIES if not FAMILIES[name].clips])
def test_a_video_is_refused_in_words_by_a_model_without_video(name, embedder_of):
    with pytest.raises(InputError, match=r"item 0: item\.video: expected .*, got a video; "):
        embedder_of(name).encode([CLIPS[0]])


@pytest.mark.parametrize("name", [name for name in FAMILIES if not FAMILIES[name].pictures])
def test_a_picture_is_refused_in_words_by_a_model_of_text(name, embedder_of):
    with pytest.raises(InputError, match=r"item 0: item\.image: expected .*text"):
        embedder_of(name).encode([{"image": FAMILIES["qwen2_vl"].items[3].content[0]}])


@pytest.mark.parametrize("name", FAMILIES)
def test_a_missing_weight_is_named(name, saved, tmp_path):
    copy = shutil.copytree(saved(name), tmp_path / "copy")
    file = next(copy.glob("*model.safetensors"))
    weights = load_file(file)
    lost = next(key for key in sorted(weights) if key.endswith(".weight") and weights[key].dim() == 2)
    save_file({key: value for key, value in weights.items() if key != lost}, file, metadata={"format": "pt"})

    with pytest.raises(InputError, match=r"expected exactly the weights of its config, got 1 missing: .*weight"):
        opened(name, copy)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_file_cut_short_is_refused_in_words(name, saved, tmp_path):
    copy = shutil.copytree(saved(name), tmp_path / "copy")
    file = next(copy.glob("*model.safetensors"))
    file.write_bytes(file.read_bytes()[:-1000])

    with pytest.raises(InputError, match=r"expected whole safetensors files, got .*; download it again"):
        opened(name, copy)


def test_lora_on_a_name_that_no_layer_has_is_refused(saved):
    with pytest.raises(InputError, match=r"lora\.targets: expected suffixes of linear layers"):
        add_lora(opened("qwen2_vl", saved("qwen2_vl")).backbone.model, Lora(targets=("nothing",)))


@pytest.mark.skipif(is_flash_attn_2_available(), reason="the kernel is installed here")
@pytest.mark.parametrize("name", LANGUAGE)
def test_a_kernel_that_is_not_installed_is_refused_in_words(name, saved):
    message = r"backbone\.attention: expected a kernel that .*; (install it, or )?use sdpa"
    for make in (family_embedder, lambda name, **choices: opened(name, saved(name), **choices)):
        with pytest.raises(InputError, match=message):
            make(name, attention="flash_attention_2")


@pytest.mark.parametrize("name", FAMILIES)
def test_a_model_and_its_reopened_copy_have_one_identity(name, saved, embedder_of):
    again = identity(Embedder.from_pretrained(saved(name), device="cpu"))

    assert changed(again, identity(embedder_of(name))) == set()


def changed(ours, theirs):
    return {part for part in ours.keys() | theirs.keys() if ours.get(part) != theirs.get(part)}
