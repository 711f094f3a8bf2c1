"""The last layer at the tokens that the pooler reads, against the last layer at all of them."""

import copy
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch

from mmembed import Embedder, Item
from mmembed.counters import counting
from mmembed.errors import InputError
from mmembed.models.identity import identity
from mmembed.models.last_layer import check_last_layer, layers_of_decoder
from mmembed.models.poolers import LastTokenPooler
from mmembed.models.settings import (
    BeforeToken,
    ChatPrompt,
    LastToken,
    MeanToken,
    MultiLayer,
    Scratch,
    Speed,
    TextModel,
)
from tests.cases import LOUD, WORDS
from tests.families import FAMILIES, LANGUAGE, family_embedder, family_settings, lora_of, opened, perturb
from tests.models.test_golden_embeddings import CASES, RUNNABLE, overrides_of, published
from tests.models.test_packing import PACKS, assert_equal_gradients, batch_of, gradients

DECODERS = [name for name in LANGUAGE if "causal" in FAMILIES[name].policies]
POLICIES = ["causal", "bidirectional", "prefix"]
POOLED = Speed(last_layer="pooled")


def told(embedder, **speed):
    """The embedder with another speed, without building it again."""
    embedder.settings = replace(embedder.settings, speed=Speed(**speed))
    embedder.backbone.speed = embedder.settings.speed
    return embedder


def both_ways(embedder, batch, **speed):
    """Vectors with the last layer at all tokens, and at those that are read, with the work of the latter."""
    every = told(embedder, last_layer="all")(batch)
    with counting() as work:
        pooled = told(embedder, last_layer="pooled", **speed)(batch)
    return every, pooled, work


def built(name, pooler=None, speed=POOLED, **backbone):
    settings = replace(family_settings(name, **backbone), speed=speed)
    return Embedder(replace(settings, pooler=pooler) if pooler else settings, texts=WORDS)


@torch.no_grad()
@pytest.mark.parametrize(("attention", "side"), [("sdpa", "right"), ("sdpa", "left"), ("eager", "right")])
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", DECODERS)
def test_padded_rows_embed_as_with_the_last_layer_at_all_tokens(name, policy, attention, side):
    choices = {"attention_policy": policy, "attention": attention, "padding_side": side}
    embedder, items = family_embedder(name, **choices).eval(), FAMILIES[name].items
    batch = batch_of(embedder, items)

    with counting() as before:
        told(embedder, last_layer="all")(batch)
    every, pooled, work = both_ways(embedder, batch)

    assert torch.allclose(pooled, every, atol=2e-6, rtol=0)
    assert before["last_layer_tokens"] == before["padded_tokens"] == len(items) * int(batch.lengths.max())
    assert work["last_layer_tokens"] == len(items)
    assert work["padded_tokens"] == before["padded_tokens"]


@torch.no_grad()
@pytest.mark.parametrize("policy", ["causal", "bidirectional"])
@pytest.mark.parametrize("name", PACKS)
def test_packed_rows_embed_as_with_the_last_layer_at_all_tokens(name, policy):
    embedder, items = family_embedder(name, attention_policy=policy).eval(), FAMILIES[name].items

    every, pooled, work = both_ways(embedder, batch_of(embedder, items), packing="on")

    assert torch.allclose(pooled, every, atol=2e-6, rtol=0)
    assert work["last_layer_tokens"] == len(items)
    assert work["padded_tokens"] == work["language_tokens"]


@pytest.mark.parametrize("packing", ["off", "on"])
@pytest.mark.parametrize("name", PACKS)
def test_every_weight_has_the_gradient_that_the_last_layer_at_all_tokens_gives(name, packing):
    embedder = family_embedder(name).train()
    batch = batch_of(embedder, FAMILIES[name].items)

    every, pooled = (gradients(told(embedder, last_layer=which, packing=packing), batch) for which in ("all", "pooled"))

    assert_equal_gradients(pooled, every)


@pytest.mark.parametrize("dora", [False, True], ids=["lora", "dora"])
@pytest.mark.parametrize("name", ["qwen2_vl", "qwen3_vl", "llava_next", "phi3_v", "mllama", "qwen2"])
def test_an_adapter_is_part_of_the_layer(name, dora, saved):
    embedder = opened(name, saved(name), lora=replace(lora_of(name), dora=dora)).train()
    perturb(embedder)
    batch = batch_of(embedder, FAMILIES[name].items)

    every, pooled, _ = both_ways(embedder, batch)
    theirs, ours = (gradients(told(embedder, last_layer=which), batch) for which in ("all", "pooled"))

    assert torch.allclose(pooled, every, atol=2e-6, rtol=0)
    assert any("lora_" in name for name in ours)
    assert_equal_gradients(ours, theirs)


@torch.no_grad()
@pytest.mark.parametrize("packing", ["off", "on"])
@pytest.mark.parametrize("policy", ["causal", "bidirectional"])
@pytest.mark.parametrize("many", [False, True], ids=["one length", "lengths"])
def test_a_token_in_the_middle_of_a_row_is_read(policy, packing, many):
    pooler, style = BeforeToken("<|vision_pad|>"), ChatPrompt(answer="<|vision_pad|> and what follows")
    embedder = built("qwen2_vl", pooler, attention_policy=policy, prompt=style).eval()
    items = [Item.of(item) for item in FAMILIES["qwen2_vl"].items[: None if many else 1]] * 2
    batch = batch_of(embedder, items)
    places = embedder.pooler.read_places(embedder.backbone.embed(batch, embedder.vision(batch)))

    every, pooled, work = both_ways(embedder, batch, packing=packing)

    assert bool((places < batch.lengths - 1).all())
    assert torch.allclose(pooled, every, atol=2e-6, rtol=0)
    assert work["last_layer_tokens"] == len(items)


@torch.no_grad()
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_sliding_window_shorter_than_a_row_is_kept(attention, side):
    text = LOUD | {"sliding_window": 4}
    scratch = Scratch("mistral", text=text)
    embedder = family_embedder("mistral", scratch=scratch, attention=attention, padding_side=side).eval()
    whole = family_embedder("mistral", scratch=Scratch("mistral", text=LOUD | {"sliding_window": None})).eval()
    batch = batch_of(embedder, [Item.of("a red circle " * times) for times in (1, 4, 9)])

    every, pooled, _ = both_ways(embedder, batch)

    assert not torch.allclose(every, whole(batch), atol=1e-3)
    assert torch.allclose(pooled, every, atol=2e-6, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("packing", ["off", "on"])
def test_rows_of_different_rotary_frequencies_run_apart_and_come_back_in_order(packing):
    text = LOUD | {"original_max_position_embeddings": 60, "max_position_embeddings": 4096}
    scale = {"rope_type": "longrope", "short_factor": [1.0] * 8, "long_factor": [4.0] * 8, "rope_theta": 10000.0}
    settings = replace(
        family_settings("qwen2"), backbone=TextModel(scratch=Scratch("phi3", text=text | {"rope_parameters": scale}))
    )
    embedder = Embedder(settings, texts=WORDS).eval()
    batch = batch_of(embedder, [Item.of("a red circle " * times) for times in (30, 1, 2, 20, 3)])

    every, pooled, work = both_ways(embedder, batch, packing=packing)

    assert len(embedder.backbone.groups(batch.lengths)) == 2
    assert torch.allclose(pooled, every, atol=2e-6, rtol=0)
    assert work["last_layer_tokens"] == 5


@torch.no_grad()
@pytest.mark.parametrize(("family", "name"), RUNNABLE)
@pytest.mark.parametrize("packing", ["off", "on"])
def test_embeddings_equal_the_published_ones(packing, family, name, open_golden, golden_item):
    case = CASES[family, name]["case"]
    model = open_golden(family, **overrides_of(case))
    items = [golden_item(text, paths) for text, paths in zip(case["texts"], case["images"], strict=True)]
    before = model.settings
    try:
        ours = told(model, last_layer="pooled", packing=packing).encode(items, workers=1).numpy()
    finally:
        told(model, last_layer=before.speed.last_layer, packing=before.speed.packing)

    assert np.abs(ours - published(family, name)).max() <= 2e-6


def test_a_checkpoint_is_opened_so_and_says_so_when_it_is_saved(saved, tmp_path):
    items = FAMILIES["qwen2_vl"].items
    every, pooled = (
        Embedder.from_pretrained(saved("qwen2_vl"), device="cpu", speed={"last_layer": which})
        for which in ("all", "pooled")
    )
    with counting() as work:
        vectors = pooled.encode(items)
    pooled.save(tmp_path / "again")

    assert work["last_layer_tokens"] == len(items)
    assert torch.allclose(vectors, every.encode(items), atol=2e-6, rtol=0)
    assert Embedder.from_pretrained(tmp_path / "again", device="cpu").settings.speed == pooled.settings.speed
    assert identity(pooled) == identity(every)


def test_threads_that_embed_at_once_do_not_meet():
    """Hooks of one run must not be seen by another's."""
    embedder = built("qwen2").eval()
    items = ["a red circle " * times for times in (1, 5, 9, 2)]
    wanted = embedder.encode(items)

    with ThreadPoolExecutor(3) as threads:
        found = list(threads.map(embedder.encode, [items] * 30))

    assert all(torch.allclose(vectors, wanted, atol=2e-6, rtol=0) for vectors in found)


def test_nothing_is_left_in_the_model_when_it_has_run_or_failed():
    embedder = built("qwen2_vl").eval()
    layer = layers_of_decoder(embedder.backbone)[-1]
    batch = batch_of(embedder, FAMILIES["qwen2_vl"].items)
    embedder(batch)
    hooks = dict(layer._forward_pre_hooks)
    before = {name: value.clone() for name, value in embedder.state_dict().items()}
    facts, config = embedder.backbone.facts(), json.dumps(embedder.backbone.model.config.to_dict(), default=str)
    attributes = set(vars(layer.self_attn)) | set(vars(layer))

    embedder(batch)
    broken = layer.mlp.register_forward_pre_hook(lambda module, args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        embedder(batch)
    broken.remove()

    assert hooks == dict(layer._forward_pre_hooks)
    assert len(hooks) == 1
    assert dict.fromkeys(before, True) == {
        name: torch.equal(value, before[name]) for name, value in embedder.state_dict().items()
    }
    assert facts == embedder.backbone.facts()
    assert config == json.dumps(embedder.backbone.model.config.to_dict(), default=str)
    assert attributes == set(vars(layer.self_attn)) | set(vars(layer))


@pytest.mark.parametrize("pooler", [MeanToken(), MultiLayer((0, -1), LastToken())])
def test_a_pooler_of_more_than_one_token_is_refused(pooler):
    with pytest.raises(InputError, match=r"speed\.last_layer: pooled: expected a pooler that reads one token of a row"):
        built("qwen2", pooler)


@pytest.mark.parametrize("name", ["bert", "modernbert", "distilbert"])
def test_an_encoder_has_no_such_layer(name):
    with pytest.raises(InputError, match=r"expected a decoder whose last layer is one of self-attention, got TextB"):
        built(name, LastToken())


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_a_dual_encoder_reads_more_than_one_token(name):
    with pytest.raises(InputError, match=r"speed\.last_layer: pooled: expected a pooler that reads one token"):
        built(name)


def test_a_last_layer_that_attends_to_pictures_is_refused():
    scratch = Scratch("mllama", text=LOUD | {"cross_attention_layers": [1], "num_hidden_layers": 2})

    with pytest.raises(InputError, match=r"expected a decoder whose last layer is one of self-attention, got Mllama"):
        built("mllama", scratch=scratch)


def test_a_last_layer_that_features_are_added_to_is_refused():
    scratch = Scratch("qwen3_vl", text=LOUD | {"num_hidden_layers": 2}, vision=FAMILIES["qwen3_vl"].vision)

    with pytest.raises(InputError, match=r"expected a last layer to which no features of pictures are added, got 2 of"):
        built("qwen3_vl", scratch=scratch)


def test_recomputed_activations_are_refused():
    with pytest.raises(InputError, match=r"speed\.last_layer: pooled: expected gradient_checkpointing: false"):
        built("qwen2_vl", gradient_checkpointing=True)


def test_a_kernel_that_takes_no_mask_is_refused(embedder_of):
    backbone = copy.copy(embedder_of("qwen2").backbone)
    backbone.settings = replace(backbone.settings, attention="flash_attention_2")

    with pytest.raises(InputError, match=r"speed\.last_layer: pooled: expected attention: sdpa or eager, got flash"):
        check_last_layer(backbone, LastTokenPooler())


class Otherwise(torch.nn.Module):
    """A decoder layer of a library that calls its arguments otherwise."""

    self_attn = None

    def forward(self, states, rotary=None, mask=None, past_key_values=None):
        return states


def test_a_layer_that_is_told_by_other_names_is_refused_in_words(embedder_of):
    embedder = copy.deepcopy(embedder_of("qwen2"))
    layers = layers_of_decoder(embedder.backbone)
    batch = batch_of(embedder, FAMILIES["qwen2"].items)
    # the library's own layer, handed no rotation
    layers[-1].register_forward_pre_hook(
        lambda _, args, more: (args, {name: value for name, value in more.items() if name != "position_embeddings"}),
        prepend=True,
        with_kwargs=True,
    )
    message = "a last layer told position_embeddings and attention_mask by name, and its cache as cache or past_key_val"

    with pytest.raises(InputError, match=rf"speed\.last_layer: expected {message}.*got Qwen2Dec.*; last_layer: all"):
        told(embedder, last_layer="pooled")(batch)

    layers[-1] = Otherwise()
    with pytest.raises(InputError, match=rf"{message}ues, got Otherwise with states, rotary, mask, past_key_values"):
        check_last_layer(embedder.backbone, embedder.pooler)
    assert not told(embedder, last_layer="auto").last_layer_at_one_token


@pytest.mark.parametrize(
    ("name", "choices", "at_one"),
    [
        ("qwen2_vl", {}, True),
        ("qwen2_vl", {"gradient_checkpointing": True}, False),
        ("qwen2", {"pooler": MeanToken()}, False),
        ("bert", {}, False),
        ("clip", {}, False),
    ],
)
def test_left_to_itself_the_last_layer_is_computed_where_it_is_read_if_it_can_be(name, choices, at_one):
    embedder = built(name, speed=Speed(last_layer="auto"), **choices).eval()
    items = FAMILIES[name].items

    with counting() as work:
        vectors = embedder.encode(items)

    assert embedder.last_layer_at_one_token is at_one
    assert (work["last_layer_tokens"] == len(items)) is at_one
    assert torch.allclose(vectors, told(embedder, last_layer="all").encode(items), atol=2e-6, rtol=0)
