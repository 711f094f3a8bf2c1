"""What every family of backbones promises, each on a small random model of the real architecture."""

import pickle
import random
import shutil
from collections import Counter
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
)
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.utils import is_flash_attn_2_available

from mmembed import Embedder, Item
from mmembed.errors import InputError
from mmembed.models.compiled import repeated_layers
from mmembed.models.identity import identity
from mmembed.models.prompts import Kind
from mmembed.models.sequence import collate
from mmembed.models.settings import BackboneSettings, RawPrompt, Speed
from mmembed.settings import subclasses
from tests.families import CLIPS, FAMILIES, LANGUAGE, READS_PICTURES, family_embedder, opened, step
from tests.speeds import at_speed

KERNELS = ("sdpa", "eager")
ASKED = [(name, policy) for name in LANGUAGE for policy in FAMILIES[name].policies]


def test_the_table_of_parts_has_every_family_and_each_architecture_is_tried_here(embedder_of):
    assert set(subclasses(BackboneSettings).values()) == {small.kind for small in FAMILIES.values()}
    known = {a for name in LANGUAGE for a in embedder_of(name).backbone.family.architectures}
    assert known == set(LANGUAGE)


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


@pytest.mark.parametrize("name", [name for name in READS_PICTURES if name in LANGUAGE and name != "mllama"])
def test_a_prefix_of_pictures_sees_itself_and_nothing_behind_it(name, embedder_of):
    backbone = embedder_of(name, attention_policy="prefix", prompt=RawPrompt()).backbone
    picture = FAMILIES[name].items[3].content[0]
    moved = []
    for item in (Item((picture,)), Item((picture, "behind it"))):
        batch = collate([backbone.preprocessor(item, "query")])
        with torch.no_grad():
            sequence = backbone.embed(batch, backbone.vision(batch))
            changed = sequence.embeds.clone()
            changed[-1] += 1
            states = [backbone.run(s).states for s in (sequence, replace(sequence, embeds=changed))]
        # the picture's own first token: some tokenizers begin a text before it
        first = (batch.kinds == Kind.IMAGE).int().argmax()
        moved.append((states[0] - states[1])[first].abs().max().item())

    assert moved[0] > 1e-6
    assert moved[1] == 0


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


@pytest.mark.parametrize("checkpointing", [False, True], ids=["", "checkpointing"])
@pytest.mark.parametrize("name", FAMILIES)
def test_one_step_moves_every_trainable_weight_and_no_other(name, checkpointing):
    embedder = family_embedder(name, gradient_checkpointing=checkpointing)

    trainable, moved = step(embedder, FAMILIES[name].items)

    assert moved == trainable == embedder.trainable
    frozen = {n for n, _ in embedder.named_parameters()} - trainable
    assert all(n.removeprefix("backbone.model.").startswith(embedder.backbone.unused) for n in frozen)


def count_runs(embedder):
    """How often each of the repeated layers runs, by name, from now on; those that do not run are not there."""
    runs = Counter()
    layers = set(repeated_layers(embedder.backbone))
    for name, module in embedder.backbone.named_modules():
        inside = next((part for part in module.modules() if isinstance(part, nn.LayerNorm | nn.Linear)), None)
        # mergers of the deep stack are projections, not layers
        if module in layers and inside is not None and "merger" not in name:
            inside.register_forward_hook(lambda *_, name=name: runs.update([name]))
    return runs


@pytest.mark.parametrize("name", FAMILIES)
def test_gradient_checkpointing_runs_every_layer_again_and_gives_the_same_gradients(name):
    gradients, runs = [], []
    for checkpointing in (False, True):
        embedder = family_embedder(name, gradient_checkpointing=checkpointing).train()
        runs.append(count_runs(embedder))
        # at one token of a row the last layer runs in two parts
        with at_speed(embedder, Speed(last_layer="all")):
            embedder(collate(embedder.prepare(FAMILIES[name].items, "query")))[:, :9].sum().backward()
        gradients.append({n: p.grad for n, p in embedder.named_parameters() if p.grad is not None})

    once, again = runs
    assert once
    assert again == {layer: 2 * times for layer, times in once.items()}
    plain, checkpointed = gradients
    assert plain.keys() == checkpointed.keys()
    for n, g in plain.items():
        assert torch.allclose(checkpointed[n], g, rtol=1e-4, atol=1e-5 * max(1.0, g.abs().max().item())), n


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


@pytest.mark.parametrize("name", [name for name in FAMILIES if not FAMILIES[name].clips])
def test_a_video_is_refused_in_words_by_a_model_without_video(name, embedder_of):
    with pytest.raises(InputError, match=r"item 0: item\.video: expected .*, got (a video|medium of kind video); "):
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

    with pytest.raises(InputError, match=r"expected exactly the weights of its config, got 1 missing: ") as error:
        opened(name, copy)

    # files may have it behind other prefixes than the model
    assert error.value.got.endswith(".".join(lost.split(".")[-2:]))


@pytest.mark.parametrize("name", FAMILIES)
def test_a_file_cut_short_is_refused_in_words(name, saved, tmp_path):
    copy = shutil.copytree(saved(name), tmp_path / "copy")
    file = next(copy.glob("*model.safetensors"))
    file.write_bytes(file.read_bytes()[:-1000])

    with pytest.raises(InputError, match=r"expected whole safetensors files, got .*; download it again"):
        opened(name, copy)


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


def flash_stand_in(module, query, key, value, attention_mask, *, scaling, is_causal=None, **_):
    """What FlashAttention computes, and how it is told: a mask of padding, and whether it is causal."""
    is_causal = module.is_causal if is_causal is None else is_causal
    groups, longest = query.shape[1] // key.shape[1], query.shape[2]
    seen = torch.ones(longest, longest, dtype=torch.bool)
    seen = (seen.tril() if is_causal else seen)[None, None]
    if attention_mask is not None:
        # a padded place sees itself: it is thrown away, but must be a number
        seen = seen & attention_mask[:, None, None].bool() | torch.eye(longest, dtype=torch.bool)
    key, value = (x.repeat_interleave(groups, dim=1) for x in (key, value))
    output = F.scaled_dot_product_attention(query, key, value, attn_mask=seen, scale=scaling)
    return output.transpose(1, 2), None


AttentionInterface.register("stand_in_flash", flash_stand_in)
AttentionMaskInterface.register("stand_in_flash", ALL_MASK_ATTENTION_FUNCTIONS["flash_attention_2"])
# transformers has no FlashAttention for Mllama, which refuses it, and an encoder is told nothing
FLASH = [name for name in LANGUAGE if "causal" in FAMILIES[name].policies and name != "mllama"]


@pytest.mark.parametrize("checkpointing", [False, True], ids=["", "checkpointing"])
@pytest.mark.parametrize("policy", ["causal", "bidirectional"])
@pytest.mark.parametrize("name", FLASH)
def test_a_kernel_that_takes_no_mask_honours_the_policy_in_both_passes(name, policy, checkpointing):
    results = []
    for kernel in ("sdpa", "flash_attention_2"):
        embedder = family_embedder(name, attention_policy=policy, gradient_checkpointing=checkpointing).train()
        if kernel != "sdpa":
            embedder.backbone.settings = replace(embedder.backbone.settings, attention=kernel)
            embedder.backbone.language_config._attn_implementation = "stand_in_flash"
        vectors = embedder(collate(embedder.prepare(FAMILIES[name].items, "query")))
        vectors[:, :9].sum().backward()
        gradients = {n: p.grad for n, p in embedder.named_parameters() if p.grad is not None}
        results.append((vectors.detach(), gradients))

    (ours, our_gradients), (theirs, their_gradients) = results
    assert torch.allclose(ours, theirs, atol=1e-5, rtol=0)
    for n, g in our_gradients.items():
        assert torch.allclose(their_gradients[n], g, rtol=1e-3, atol=1e-4 * max(1.0, g.abs().max().item())), n


@pytest.mark.parametrize("name", FAMILIES)
def test_half_precision_moves_an_embedding_little(name, embedder_of):
    items = FAMILIES[name].items
    whole = embedder_of(name, loud=False).encode(items)

    half = embedder_of(name, loud=False, dtype="bfloat16").encode(items)

    assert half.dtype == torch.float32
    assert torch.allclose(half.norm(dim=1), torch.ones(len(items)), atol=1e-5)
    assert (half * whole).sum(1).min() > 0.99


@pytest.mark.parametrize("name", READS_PICTURES)
def test_prepared_media_in_memory_change_no_embedding(name, embedder_of):
    embedder, items = family_embedder(name).eval(), FAMILIES[name].items
    embedder.cache_media(1 << 24)

    both_ways = [embedder.encode(order) for order in (items, items[::-1])]

    for vectors, order in zip(both_ways, (items, items[::-1]), strict=True):
        assert torch.allclose(vectors, embedder_of(name).encode(order), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_preprocessor_travels_to_a_worker(name, embedder_of):
    preprocessor = embedder_of(name).backbone.preprocessor

    arrived = pickle.loads(pickle.dumps(preprocessor))

    for item in FAMILIES[name].items:
        assert arrived(item, "query").fingerprint == preprocessor(item, "query").fingerprint


@pytest.mark.parametrize("name", LANGUAGE)
def test_a_preprocessor_is_made_without_weights(name, tmp_path):
    whole = family_embedder(name)
    whole.save(tmp_path / "model")
    settings = replace(FAMILIES[name].kind(path=str(tmp_path / "model")), **FAMILIES[name].settings)

    backbone = settings.build(prompt=FAMILIES[name].prompt, weights=False)

    assert {p.device.type for p in backbone.model.parameters()} == {"meta"}
    for item in FAMILIES[name].items:
        ours, expected = (one.preprocessor(item, "query") for one in (backbone, whole.backbone))
        assert torch.equal(ours.ids, expected.ids)
        assert torch.equal(ours.positions, expected.positions)
        assert all(torch.equal(a.pixels, b.pixels) for a, b in zip(ours.media, expected.media, strict=True))
