"""Rows packed one behind another against each row alone, which is the meaning of both packing and padding."""

import copy
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

from mmembed import Embedder, Item
from mmembed.counters import counting
from mmembed.errors import InputError
from mmembed.models.attention import ROWS
from mmembed.models.sequence import collate
from mmembed.models.settings import RoiReplay, Scratch, Speed, TextModel
from tests.cases import LOUD, WORDS, small_embedder
from tests.families import FAMILIES, LANGUAGE, family_embedder, family_settings, lora_of, opened, perturb
from tests.models.test_golden_embeddings import CASES, RUNNABLE, overrides_of, published
from tests.regions import mixed_items as items_with_regions

DUAL = ["clip", "siglip", "coca", "timm"]
ENCODERS = ["bert", "roberta", "xlm-roberta", "distilbert", "modernbert"]
PACKS = [name for name in LANGUAGE if name not in ("mllama", *ENCODERS)]
KINDS = ["qwen2_vl", "qwen3_vl", "llava_next", "phi3_v", "qwen2"]
"""One of each way to place tokens and to run the layers."""


def packing(embedder, choice="on"):
    embedder.backbone.speed = replace(embedder.backbone.speed, packing=choice)
    return embedder


def batch_of(embedder, items):
    return collate(embedder.prepare(items, "query"))


def both_ways(embedder, batch):
    """Vectors of the batch padded and packed."""
    return packing(embedder, "off")(batch), packing(embedder)(batch)


def gradients(embedder, batch):
    embedder.zero_grad()
    vectors = embedder(batch)
    (vectors * torch.randn(vectors.shape, generator=torch.Generator().manual_seed(1))).sum().backward()
    return {name: p.grad.clone() for name, p in embedder.named_parameters() if p.grad is not None}


def assert_equal_gradients(ours, theirs):
    assert ours.keys() == theirs.keys()
    largest = max(g.abs().max().item() for g in theirs.values())
    for name, gradient in theirs.items():
        assert torch.allclose(ours[name], gradient, rtol=1e-3, atol=1e-5 * largest), name


@torch.no_grad()
@pytest.mark.parametrize("policy", ["causal", "bidirectional"])
@pytest.mark.parametrize("name", PACKS)
def test_packed_rows_embed_as_alone_and_as_padded(name, policy):
    embedder, items = family_embedder(name, attention_policy=policy).eval(), FAMILIES[name].items
    batch = batch_of(embedder, items)
    alone = torch.cat([embedder(batch_of(embedder, [item])) for item in items])
    with counting() as work:
        padded = packing(embedder, "off")(batch)
    with counting() as packed_work:
        packed = packing(embedder)(batch)

    assert len(set(batch.lengths.tolist())) > 1
    assert torch.allclose(packed, alone, atol=2e-6, rtol=0)
    assert torch.allclose(packed, padded, atol=2e-6, rtol=0)
    assert packed_work["padded_tokens"] == packed_work["language_tokens"] == int(batch.lengths.sum())
    assert work["padded_tokens"] == len(items) * int(batch.lengths.max())
    assert packed_work["language_rows"] == work["language_rows"] == len(items)


@pytest.mark.parametrize("checkpointing", [False, True], ids=["", "checkpointing"])
@pytest.mark.parametrize("name", PACKS)
def test_packed_rows_give_every_weight_the_gradient_of_padded_ones(name, checkpointing):
    embedder = family_embedder(name, gradient_checkpointing=checkpointing).train()
    batch = batch_of(embedder, FAMILIES[name].items)

    padded, packed = (gradients(packing(embedder, choice), batch) for choice in ("off", "on"))

    assert_equal_gradients(packed, padded)


@pytest.mark.parametrize("checkpointing", [False, True], ids=["", "checkpointing"])
@pytest.mark.parametrize("name", KINDS)
def test_packed_rows_train_an_adapter_alike(name, checkpointing, saved):
    embedder = opened(name, saved(name), lora=lora_of(name), gradient_checkpointing=checkpointing).train()
    perturb(embedder)
    batch = batch_of(embedder, FAMILIES[name].items)

    padded, packed = (gradients(packing(embedder, choice), batch) for choice in ("off", "on"))

    assert all("lora_" in name for name in packed)
    assert_equal_gradients(packed, padded)


@torch.no_grad()
def test_tokens_of_regions_are_packed_with_their_rows():
    embedder = small_embedder(regions=RoiReplay()).eval()

    padded, packed = both_ways(embedder, batch_of(embedder, items_with_regions("qwen2_vl")))

    assert torch.allclose(packed, padded, atol=2e-6, rtol=0)


@torch.no_grad()
def test_rows_of_different_rotary_frequencies_are_packed_apart():
    text = LOUD | {"original_max_position_embeddings": 60, "max_position_embeddings": 4096}
    scale = {"rope_type": "longrope", "short_factor": [1.0] * 8, "long_factor": [4.0] * 8, "rope_theta": 10000.0}
    settings = family_settings("qwen2")
    scratch = Scratch("phi3", text=text | {"rope_parameters": scale})
    embedder = Embedder(replace(settings, backbone=TextModel(scratch=scratch)), texts=WORDS).eval()
    items = [Item.of("a red circle " * times) for times in (1, 2, 3, 20, 30)]
    batch = batch_of(embedder, items)

    assert len(embedder.backbone.groups(batch.lengths)) == 2
    alone = torch.cat([embedder(batch_of(embedder, [item])) for item in items])
    with counting() as work:
        packed = packing(embedder)(batch)

    assert torch.allclose(packed, alone, atol=2e-6, rtol=0)
    assert work["padded_tokens"] == int(batch.lengths.sum())


@torch.no_grad()
@pytest.mark.parametrize("name", KINDS)
def test_in_half_precision_a_packed_row_is_bit_by_bit_the_row_alone(name):
    embedder, items = packing(family_embedder(name, dtype="bfloat16").eval()), FAMILIES[name].items
    # a query alone asks its keys through a mask, by another kernel
    embedder.settings = replace(embedder.settings, speed=Speed(packing="on", last_layer="all"))

    packed = embedder(batch_of(embedder, items))

    assert torch.equal(packed, torch.cat([embedder(batch_of(embedder, [item])) for item in items]))


@torch.no_grad()
def test_rows_of_one_length_need_neither_padding_nor_packing(scratch_embedder):
    embedder = packing(copy.deepcopy(scratch_embedder("qwen2_vl")))
    for items in ([Item.of("a red circle")], [Item.of("a red circle")] * 3):
        batch = batch_of(embedder, items)
        sequence = embedder.backbone.embed(batch, embedder.vision(batch))

        assert embedder.backbone.layout(sequence).segments == {}
        assert torch.equal(*both_ways(embedder, batch))


@torch.no_grad()
@pytest.mark.parametrize(("family", "name"), RUNNABLE)
def test_packed_embeddings_equal_the_published_ones(family, name, open_golden, golden_item):
    case = CASES[family, name]["case"]
    model = open_golden(family, **overrides_of(case))
    items = [golden_item(text, paths) for text, paths in zip(case["texts"], case["images"], strict=True)]
    before = model.backbone.speed
    try:
        ours = packing(model)(batch_of(model, items)).numpy()
    finally:
        model.backbone.speed = before

    assert np.abs(ours - published(family, name)).max() <= 2e-6


def test_a_checkpoint_is_opened_to_pack(saved):
    items = FAMILIES["qwen2_vl"].items
    plain, packed = (
        Embedder.from_pretrained(saved("qwen2_vl"), device="cpu", speed={"packing": choice}) for choice in ("off", "on")
    )

    assert packed.settings.speed == packed.backbone.speed == Speed(packing="on")
    assert packed.backbone.pads_because is None
    assert torch.allclose(packed.encode(items), plain.encode(items), atol=2e-6, rtol=0)


def test_packing_leaves_no_trace_in_what_is_saved(saved, embedder_of, tmp_path):
    embedder = packing(family_embedder("qwen2_vl").eval())
    embedder(batch_of(embedder, FAMILIES["qwen2_vl"].items))
    facts = embedder.backbone.facts()

    embedder.save(tmp_path / "saved")

    written = [
        json.loads((directory / "config.json").read_text()) for directory in (tmp_path / "saved", saved("qwen2_vl"))
    ]
    assert written[0] == written[1]
    assert ROWS not in json.dumps(written[0])
    assert facts == embedder_of("qwen2_vl").backbone.facts()


@torch.no_grad()
@pytest.mark.parametrize("name", ["qwen2_vl", "llava_next", "phi3", "qwen2"])
def test_a_model_that_is_told_of_no_rows_is_the_librarys_own(name):
    """Somebody else may run it: with the library's masks and with positions that it makes."""
    ours = family_embedder(name).eval().backbone
    assert ours.language_config._attn_implementation == ROWS
    theirs = copy.deepcopy(ours)
    theirs.language_config._attn_implementation = "sdpa"
    embeds, padded = torch.randn(2, 7, ours.width), torch.tensor([[0, 0, 1, 1, 1, 1, 1], [1] * 7])
    packed = torch.tensor([[0, 1, 2, 3, 0, 1, 2]] * 2)
    asked = [{}, {"attention_mask": padded}, {"attention_mask": torch.ones(2, 1, 7, 7, dtype=torch.bool).tril()}]
    asked += [{"position_ids": packed}]

    for more in asked:
        states = [b.language_model(inputs_embeds=embeds, **more).last_hidden_state for b in (ours, theirs)]
        assert torch.equal(*states)


@torch.no_grad()
@pytest.mark.parametrize("choice", ["off", "on"])
@pytest.mark.parametrize("name", PACKS)
def test_no_mask_is_made_where_rows_are_causal(name, choice):
    """The library would make one of all tokens, because positions in padding and between rows do not count on."""
    embedder, masks = packing(family_embedder(name).eval(), choice), []
    for layer in embedder.backbone.language_model.layers:
        layer.register_forward_pre_hook(lambda _, __, more: masks.append(more["attention_mask"]), with_kwargs=True)

    embedder(batch_of(embedder, FAMILIES[name].items))

    assert masks
    assert sum(mask.numel() for mask in masks) == 0


def flash_rows_stand_in(module, query, key, value, attention_mask, *, scaling, is_causal=None, **more):
    """What FlashAttention computes: for packed rows one after another, for a tower that is told of none all at once."""
    assert attention_mask is None
    is_causal = module.is_causal if is_causal is None else is_causal
    lengths = [query.shape[2]]
    if module.is_causal:
        lengths = more["cu_seq_lens_q"].diff().tolist()
        assert torch.equal(more["cu_seq_lens_k"], more["cu_seq_lens_q"])
        assert more["max_length_q"] == more["max_length_k"] == max(lengths)
    rows = zip(*(t.split(lengths, dim=2) for t in (query, key, value)), strict=True)
    output = [F.scaled_dot_product_attention(*qkv, is_causal=is_causal, scale=scaling, enable_gqa=True) for qkv in rows]
    return torch.cat(output, dim=2).transpose(1, 2), None


AttentionInterface.register("stand_in_flash_rows", flash_rows_stand_in)
AttentionMaskInterface.register("stand_in_flash_rows", ALL_MASK_ATTENTION_FUNCTIONS["flash_attention_2"])


@pytest.mark.parametrize("checkpointing", [False, True], ids=["", "checkpointing"])
@pytest.mark.parametrize("policy", ["causal", "bidirectional"])
@pytest.mark.parametrize("name", KINDS)
def test_flash_attention_is_told_where_rows_begin(name, policy, checkpointing):
    embedder = family_embedder(name, attention_policy=policy, gradient_checkpointing=checkpointing).train()
    batch = batch_of(embedder, FAMILIES[name].items)
    padded, padded_gradients = packing(embedder, "off")(batch).detach(), gradients(embedder, batch)
    embedder.backbone.settings = replace(embedder.backbone.settings, attention="flash_attention_2")
    embedder.backbone.language_config._attn_implementation = "stand_in_flash_rows"

    packed, packed_gradients = packing(embedder)(batch).detach(), gradients(embedder, batch)

    assert torch.allclose(packed, padded, atol=2e-6, rtol=0)
    assert_equal_gradients(packed_gradients, padded_gradients)


BIDIRECTIONAL = {"attention_policy": "bidirectional", "unpadded_causal": True}
REFUSED = [
    ("mllama", {}, "its layers attend to pictures row by row"),
    *((name, {}, "an encoder tells rows apart by their padding") for name in ENCODERS),
    *((name, {}, "its pictures and texts do not pass one language model") for name in DUAL),
    ("qwen2_vl", {"attention": "eager"}, "attention: eager cannot be told where rows begin"),
    ("qwen2_vl", {"attention_policy": "prefix"}, "attention_policy: prefix needs a mask of each row"),
    ("qwen2_vl", BIDIRECTIONAL, "unpadded_causal depends on the padding"),
]


@pytest.mark.parametrize(("name", "backbone", "why"), REFUSED)
def test_what_cannot_be_packed_is_refused_and_else_padded_with_a_reason(name, backbone, why):
    settings = family_settings(name, **backbone)
    message = rf"speed.packing: on: expected a model whose rows can be packed, got {why}; use auto"

    with pytest.raises(InputError, match=message):
        Embedder(replace(settings, speed=Speed(packing="on")), texts=WORDS)

    assert Embedder(settings, texts=WORDS).backbone.pads_because == why


def test_a_row_longer_than_a_window_of_attention_is_refused_and_else_padded():
    scratch = Scratch("mistral", text=LOUD | {"sliding_window": 40})
    embedder = Embedder(replace(family_settings("qwen2"), backbone=TextModel(scratch=scratch)), texts=WORDS).eval()
    short, long = ([Item.of("a red circle " * times) for times in rows] for rows in ((1, 2, 3), (1, 2, 20)))
    message = r"a row has \d+ tokens, and the model's layers attend to windows of 40; use auto"

    assert torch.allclose(*both_ways(embedder, batch_of(embedder, short)), atol=2e-6, rtol=0)
    with pytest.raises(InputError, match=message):
        packing(embedder)(batch_of(embedder, long))
    alone = torch.cat([embedder(batch_of(embedder, [item])) for item in packing(embedder, "auto") and long])
    assert torch.allclose(embedder(batch_of(embedder, long)), alone, atol=2e-6, rtol=0)


def test_left_to_itself_a_model_says_why_it_pads(embedder_of):
    backbone = embedder_of("qwen2").backbone

    assert backbone.speed.packing == "auto"
    assert backbone.pads_because == "the kernel for rows of different lengths needs a GPU, and the model is on cpu"
    assert packing(family_embedder("qwen2"), "off").backbone.pads_because == "packing: off"
