"""Poolers against loops over rows, by the rules of their papers, in training and through saving."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from mmembed import Embedder, Item
from mmembed.errors import InputError
from mmembed.models.identity import identity
from mmembed.models.poolers import BeforeTokenPooler, LastTokenPooler, MeanTokenPooler
from mmembed.models.prompts import Kind
from mmembed.models.sequence import Hidden, collate
from mmembed.models.settings import (
    BeforeToken,
    ChatPrompt,
    EmbedderSettings,
    LatentAttention,
    Lora,
    MeanToken,
    MultiLayer,
    QwenVL,
    RawPrompt,
)
from mmembed.models.token_layout import Padding

LENGTHS = [4, 1, 6, 3]
IS_QUERY = [True, False, False, True]
TASK, TEXT, TEMPLATE = int(Kind.INSTRUCTION), int(Kind.TEXT), int(Kind.TEMPLATE)
# the last row is instruction only
KINDS = [[TASK, TASK, TEXT, TEXT], [TEXT], [TEXT, TASK, TASK, TEMPLATE, TASK, TEXT], [TASK, TASK, TASK]]
LATENT = LatentAttention(latents=6, heads=3, head_width=4, latent_width=7)
SMALL_LATENT = LatentAttention(latents=4, heads=2, head_width=8)
LAYERS = MultiLayer((0, 1, -1), MeanToken())


def built(settings, width=5):
    return settings.build(width, lambda word: 7)


@pytest.fixture
def hidden():
    states = torch.randn(sum(LENGTHS), 5)
    kinds = torch.tensor([k for row in KINDS for k in row], dtype=torch.uint8)
    return Hidden(states, torch.arange(sum(LENGTHS)), torch.tensor(LENGTHS), kinds, torch.tensor(IS_QUERY))


def test_last_token_takes_the_end_of_each_row(hidden):
    rows = hidden.states.split(LENGTHS)

    assert torch.equal(LastTokenPooler()(hidden), torch.stack([row[-1] for row in rows]))


DROPS = [((), ()), (("instruction",), ()), ((), ("instruction",)), (("instruction",), ("instruction", "template"))]


@pytest.mark.parametrize("drop", DROPS)
def test_mean_leaves_out_the_kinds_named_for_each_side(drop, hidden):
    expected = []
    for states, kinds, is_query in zip(hidden.states.split(LENGTHS), KINDS, IS_QUERY, strict=True):
        dropped = [Kind[name.upper()] for name in drop[0 if is_query else 1]]
        kept = [s for s, kind in zip(states, kinds, strict=True) if kind not in dropped]
        expected.append(torch.stack(kept or list(states)).mean(0))

    pooled = MeanTokenPooler(*drop)(hidden)

    assert torch.allclose(pooled, torch.stack(expected), atol=1e-6)


def test_the_choices_of_kinds_differ(hidden):
    pooled = [MeanTokenPooler(*drop)(hidden) for drop in DROPS]

    assert all(not torch.allclose(a, b) for i, a in enumerate(pooled) for b in pooled[:i])


@pytest.mark.parametrize("settings", [MeanToken(), LATENT, LAYERS], ids=lambda s: type(s).__name__)
def test_means_are_taken_in_float32_also_where_training_computes_in_bfloat16(settings, hidden):
    states = hidden.states.bfloat16()
    half = replace(hidden, states=states, layers=[states] * 3)
    pooler = built(settings)

    with torch.autocast("cpu", dtype=torch.bfloat16):
        pooled = pooler(half)

    assert pooled.dtype == torch.float32
    assert torch.equal(pooled, pooler(replace(half, states=states.float(), layers=[states.float()] * 3)))


@pytest.fixture
def marked():
    """The token 99 written by the template in each row, in the second twice, and in the words of both."""
    states = torch.randn(10, 5)
    ids, lengths = torch.tensor([99, 1, 99, 2, 3, 99, 4, 5, 99, 99]), torch.tensor([4, 6])
    kinds = torch.tensor([TEXT, TEXT, TEMPLATE, TEXT, TEXT, TEMPLATE, TEXT, TEXT, TEMPLATE, TEXT])
    return Hidden(states, ids, lengths, kinds.to(torch.uint8), torch.tensor([True, False]))


def test_before_token_takes_the_state_before_the_first_one_that_the_template_writes(marked):
    assert torch.equal(BeforeTokenPooler("<emb>", 99)(marked), marked.states[[1, 4]])


@pytest.mark.parametrize("place", [2, 5, None])
def test_a_row_without_the_token_or_with_nothing_before_it_is_refused_in_words(place, marked):
    ids = marked.ids.clone()
    if place is None:
        # first of the second row, and again later
        ids[4] = 99
        marked = replace(marked, kinds=marked.kinds.index_fill(0, torch.tensor([4]), TEMPLATE))
    elif place == 2:
        ids[2] = 1
    else:
        ids[[5, 8]] = 1

    with pytest.raises(InputError, match=r"pooler\.token: expected '<emb>' in every prompt, behind.*ChatPrompt"):
        BeforeTokenPooler("<emb>", 99)(replace(marked, ids=ids))


def test_a_token_that_the_tokenizer_does_not_know_is_refused_with_the_setting_that_adds_it(scratch_embedder):
    with pytest.raises(InputError, match=r"pooler\.token: expected one token.*'<emb>', which it reads as.*special_tok"):
        scratch_embedder("qwen2_vl", pooler=BeforeToken())


def test_before_the_last_marker_is_the_last_token_of_the_turn_before_it(scratch_embedder):
    style = ChatPrompt(answer="<|vision_pad|>", generation_prompt=False)
    model = scratch_embedder("qwen2_vl", pooler=BeforeToken("<|vision_pad|>"), prompt=style)
    last = scratch_embedder("qwen2_vl")
    items = ["a red circle", "<|vision_pad|> in words", Item.of("x", "Find it.")]

    # causal, and what follows the place is not seen: the state where the answer would begin
    assert torch.allclose(model.encode(items), last.encode(items), atol=1e-6)


def test_latent_attention_is_what_the_paper_says_row_by_row(hidden):
    pooler = built(LATENT)
    p = dict(pooler.named_parameters())
    norm = torch.nn.functional.layer_norm
    latents = norm(pooler.latents, (7,))
    keys, values = (latents @ p["keys_values.weight"].T).chunk(2, dim=-1)
    expected = []
    for states, kinds, is_query in zip(hidden.states.split(LENGTHS), KINDS, IS_QUERY, strict=True):
        queries, out = norm(states, (5,)) @ p["queries.weight"].T, []
        for head in range(3):
            part = slice(head * 4, head * 4 + 4)
            out.append((queries[:, part] @ keys[:, part].T / 4**0.5).softmax(-1) @ values[:, part])
        first = states + torch.cat(out, dim=-1) @ p["out.weight"].T
        value, gate = (norm(first, (5,)) @ p["feed_in.weight"].T + p["feed_in.bias"]).chunk(2, dim=-1)
        second = first + (value * torch.nn.functional.gelu(gate)) @ p["feed_out.weight"].T + p["feed_out.bias"]
        kept = [s for s, kind in zip(second, kinds, strict=True) if not (is_query and kind == TASK)]
        expected.append(torch.stack(kept or list(second)).mean(0))

    assert torch.allclose(pooler(hidden), torch.stack(expected), atol=1e-6)


def test_padding_and_what_stands_in_it_cannot_move_latent_attention(hidden):
    pooler, padding = built(LATENT), Padding(hidden.lengths, "left")
    block = padding.pad(hidden.states)
    block[~padding.mask()] = 1e3

    assert torch.equal(pooler(replace(hidden, states=padding.unpad(block))), pooler(hidden))
    alone = Hidden(hidden.states[:4], hidden.ids[:4], hidden.lengths[:1], hidden.kinds[:4], hidden.is_query[:1])
    assert torch.allclose(pooler(alone), pooler(hidden)[:1], atol=1e-6)


def test_latent_attention_without_its_outputs_is_the_mean_to_the_bit(hidden):
    pooler = built(LATENT)
    for weights in (pooler.out.weight, pooler.feed_out.weight, pooler.feed_out.bias):
        torch.nn.init.zeros_(weights)

    assert torch.equal(pooler(hidden), built(MeanToken())(hidden))


def test_the_order_of_the_latents_does_not_matter(hidden):
    pooler = built(LATENT)
    before = pooler(hidden)

    pooler.latents.data = pooler.latents.data.flip(0)

    assert torch.allclose(pooler(hidden), before, atol=1e-6)


@pytest.mark.parametrize(
    ("latents", "heads", "head_width", "latent_width", "width"), [(6, 3, 4, 7, 5), (2, 1, 8, 3, 4)]
)
def test_latent_attention_has_as_many_weights_as_the_formula_says(latents, heads, head_width, latent_width, width):
    pooler = built(LatentAttention(latents, heads, head_width, latent_width), width)
    inner = heads * head_width

    projections = width * inner + latent_width * 2 * inner + inner * width
    feed_forward = width * 8 * width + 8 * width + 4 * width * width + width
    expected = latents * latent_width + 2 * (2 * width + latent_width) + projections + feed_forward
    assert sum(p.numel() for p in pooler.parameters()) == expected


def test_latent_attention_of_the_published_size_has_the_published_number_of_weights():
    with torch.device("meta"):
        pooler = built(LatentAttention(512, 8, 4096), 4096)

    assert sum(p.numel() for p in pooler.parameters()) == pytest.approx(740.4e6, rel=1e-3)


@pytest.fixture
def layered(hidden):
    return replace(hidden, layers=[torch.randn_like(hidden.states) for _ in range(3)])


def test_multi_layer_is_the_weighted_sum_of_pooled_and_normalised_layers(layered):
    pooler = built(LAYERS)
    pooler.weights.data = torch.tensor([0.3, -1.0, 2.0])
    norm, mean = torch.nn.functional.layer_norm, built(MeanToken())

    pooled = [mean(replace(layered, states=norm(states, (5,)))) for states in layered.layers]
    expected = sum(share * each for share, each in zip(pooler.weights.softmax(0), pooled, strict=True))
    assert torch.allclose(pooler(layered), expected, atol=1e-6)


def test_multi_layer_with_all_weight_on_one_layer_is_that_layer(layered):
    pooler = built(MultiLayer((0, 1, -1)))
    pooler.weights.data = torch.tensor([-torch.inf, -torch.inf, 0.0])

    expected = torch.nn.functional.layer_norm(layered.layers[2], (5,))[layered.lengths.cumsum(0) - 1]
    assert torch.allclose(pooler(layered), expected, atol=1e-6)


def test_multi_layer_reads_the_layers_that_transformers_counts(scratch_embedder):
    model = scratch_embedder("qwen2_vl")
    batch = collate(model.prepare([Item.of("a red circle"), Item.of("x")], "query"))
    sequence = model.backbone.embed(batch, model.backbone.vision(batch))

    hidden = model.backbone.run(sequence, (0, -1, 2))

    assert torch.equal(hidden.layers[0], sequence.embeds)
    assert torch.equal(hidden.layers[1], hidden.states)
    assert torch.equal(hidden.layers[2], hidden.states)
    with pytest.raises(InputError, match=r"pooler\.layers: expected hidden states -3 to 2, got \[3\]"):
        model.backbone.run(sequence, (0, 3))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: MultiLayer(()), "expected at least one layer, each once, got ()"),
        (lambda: MultiLayer((1, 1)), "expected at least one layer, each once"),
        (lambda: MultiLayer((1,), MultiLayer((2,))), "expected a pooler of one layer, got MultiLayer"),
        (lambda: LatentAttention(heads=0), "pooler.heads: expected at least 1, got 0"),
    ],
)
def test_settings_that_make_no_pooler_are_refused(make, words):
    with pytest.raises(InputError) as error:
        make()

    assert words in str(error.value)


ITEMS = [Item.of("a red circle", "Find it."), Item.of("the same, but blue")]


def train_a_step(embedder):
    optimizer = torch.optim.SGD([p for p in embedder.parameters() if p.requires_grad], lr=0.5)
    embedder(collate(embedder.prepare(ITEMS, "query")))[:, :9].sum().backward()
    optimizer.step()
    return embedder.eval()


def adapted(golden, pooler):
    backbone = QwenVL(path=str(golden / "vlm2vec/qwen2_vl"), positions="sequential")
    return Embedder(EmbedderSettings(backbone, RawPrompt(), pooler, lora=Lora(r=4, dropout=0.0)))


@pytest.mark.parametrize("pooler", [SMALL_LATENT, MultiLayer((0, -1), SMALL_LATENT)], ids=["latent", "layers"])
@pytest.mark.parametrize("whole", [True, False], ids=["whole", "lora"])
def test_trained_pooler_weights_are_saved_beside_the_model_and_open_to_the_same_bits(
    whole, pooler, golden, fresh_embedder, tmp_path
):
    embedder = fresh_embedder("qwen2_vl", pooler=pooler) if whole else adapted(golden, pooler)
    before = {name: value.clone() for name, value in embedder.pooler.state_dict().items()}
    train_a_step(embedder)
    changed = {name for name, value in embedder.pooler.state_dict().items() if not torch.equal(value, before[name])}

    embedder.save(tmp_path / "run")
    opened = Embedder.from_pretrained(tmp_path / "run", device="cpu")
    opened.save(tmp_path / "again")
    again = Embedder.from_pretrained(tmp_path / "again", device="cpu")

    assert changed == before.keys()
    assert (tmp_path / "run/pooler.safetensors").exists()
    assert torch.equal(opened.encode(ITEMS), embedder.encode(ITEMS))
    assert torch.equal(again.encode(ITEMS), embedder.encode(ITEMS))
    assert {f"pooler.{name}" for name in before} <= opened.trainable
    assert identity(opened) == identity(again)


def test_a_pooler_without_weights_leaves_no_file(fresh_embedder, tmp_path):
    fresh_embedder("qwen2_vl").save(tmp_path / "run")

    assert not (tmp_path / "run/pooler.safetensors").exists()


def test_other_pooler_weights_are_another_model(fresh_embedder):
    one, other = fresh_embedder("qwen2_vl", pooler=SMALL_LATENT), fresh_embedder("qwen2_vl", pooler=SMALL_LATENT)

    assert {part for part, value in identity(one).items() if identity(other)[part] != value} == {"weights"}


def test_pooler_weights_that_do_not_fit_are_refused_by_name(fresh_embedder, tmp_path):
    fresh_embedder("qwen2_vl", pooler=SMALL_LATENT).save(tmp_path / "run")
    file = tmp_path / "run/pooler.safetensors"
    weights = load_file(file)
    weights["old.weight"] = weights.pop("out.weight")
    save_file(weights | {"latents": torch.zeros(1, 2)}, file)

    with pytest.raises(InputError) as error:
        Embedder.from_pretrained(tmp_path / "run", device="cpu")

    assert error.value.got == "1 missing: out.weight; 1 unexpected: old.weight; 1 of another shape: latents"


def test_pooler_weights_that_are_lost_are_missed(fresh_embedder, tmp_path):
    fresh_embedder("qwen2_vl", pooler=SMALL_LATENT).save(tmp_path / "run")
    (tmp_path / "run/pooler.safetensors").unlink()

    with pytest.raises(InputError, match=r"pooler\.safetensors: expected the pooler's weights, got no such file"):
        Embedder.from_pretrained(tmp_path / "run", device="cpu")

    settings = tmp_path / "run/embedder.yaml"
    settings.write_text(settings.read_text().replace("./pooler.safetensors", "null"))
    with pytest.raises(InputError, match=r"expected the pooler's trained weights.*pooler_weights: null"):
        Embedder.from_pretrained(tmp_path / "run", device="cpu")
