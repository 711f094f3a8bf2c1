"""Where memory runs out, chunks are cut and the step goes on: the gradient is that of the whole batch."""

import logging
import warnings
from dataclasses import replace

import lightning
import pytest
import torch
from torch.utils.data import DataLoader

from mmembed import Embedder, Item, Pair
from mmembed.counters import counting
from mmembed.errors import InputError
from mmembed.losses.settings import Contrastive, LearnedTemperature, LinCIR
from mmembed.models.adapters import add_lora
from mmembed.models.halving import halved
from mmembed.models.settings import DualEncoder, EmbedderSettings, Lora, Phi, Phrases, QwenVL, RawPrompt, Scratch
from mmembed.training.batches import PairPreparer
from mmembed.training.memory import rows_stand_apart
from mmembed.training.module import EmbedderModule
from mmembed.training.pseudo_words import LinCirModule
from mmembed.training.settings import Chunks, Optim, Stage
from tests.cases import draw, small_embedder
from tests.training.small_memory import SmallMemory

# where every chunk of at most half the largest one's tokens fits: what a pass without a graph needs, and one with
FIRST, SECOND = {"backward": 0}, {"backward": 1}


def equal_pairs():
    """Eight pictures of one size: rows of one length."""
    rows = [Item.of({"image": draw(56, 56, seed)}) for seed in range(8)]
    return [Pair(rows[i], (rows[i + 4],), query_id=str(i), source="s") for i in range(4)]


def mixed_pairs():
    """Rows of many lengths; a picture stands in three of them."""
    shared, other = draw(56, 84), draw(84, 84)
    rows = [
        (Item.of("a red circle"), Item.of({"image": shared})),
        (Item.of({"image": shared, "text": "but blue"}), Item.of({"image": other})),
        (Item.of("a much longer text about a red circle, and a blue one"), Item.of({"image": draw(56, 56)})),
        (Item.of({"image": other, "text": "what?"}), Item.of({"image": shared, "text": "that, and a longer text"})),
    ]
    return [Pair(query, (target,), query_id=str(i), source="s") for i, (query, target) in enumerate(rows)]


def module_of(embedder, chunks, cls=EmbedderModule, **stage):
    settings = {"steps": 4, "objective": Contrastive(temperature=0.1), "optim": Optim(lr=1e-2)} | stage
    return cls(embedder, Stage({}, chunks=chunks, **settings), seed=0)


def prepared(module, pairs, number=0):
    stage = module.stage
    prepare = PairPreparer(module.embedder.backbone.preprocessor, stage.chunks, filled=stage.objective.filled)
    return prepare(number, pairs)


def small(module, most, **costs):
    return SmallMemory(module.embedder.backbone.language_model.layers[0], most, **costs)


def tokens(chunk):
    return len(chunk) * int(chunk.lengths.max())


def length_of(module):
    return int(prepared(module, equal_pairs()).chunks[0].lengths.max())


def gradients(module, *batches):
    """Of all batches, added up."""
    module.zero_grad()
    for batch in batches:
        module.gradients(batch)
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


def difference(ours, theirs):
    assert ours.keys() == theirs.keys()
    largest = max(g.abs().max() for g in theirs.values())
    return (max((ours[name] - g).abs().max() for name, g in theirs.items()) / largest).item()


def lora_embedder(dropout=0.0):
    embedder = small_embedder("qwen2_5_vl").train()
    torch.manual_seed(2)
    add_lora(embedder.backbone.model, Lora(r=4, dropout=dropout))
    embedder.trainable = embedder._trainable()
    for name, parameter in embedder.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return embedder


@pytest.mark.parametrize("allocate", [SmallMemory.raise_cuda, SmallMemory.raise_cpu, SmallMemory.raise_python])
@pytest.mark.parametrize("keep_mb", [0, 4096])
@pytest.mark.parametrize("costs", [FIRST, SECOND], ids=["first pass", "second pass"])
def test_the_gradient_is_that_of_the_whole_batch(costs, keep_mb, allocate, fresh_embedder):
    module = module_of(fresh_embedder().train(), Chunks(keep_mb=keep_mb))
    batch = prepared(module, mixed_pairs())
    expected = gradients(module, batch)
    largest = tokens(batch.chunks[0])
    device = small(module, largest - 1 if costs is FIRST else largest + largest // 2, allocate=allocate, **costs)

    with counting() as work:
        ours = gradients(module, batch)

    assert difference(ours, expected) < 1e-6
    assert work["chunks_halved"] >= 1
    assert device.failures >= 1


@pytest.mark.parametrize("costs", [FIRST, SECOND], ids=["first pass", "second pass"])
@pytest.mark.parametrize("keep_mb", [0, 4096])
def test_many_halvings_reach_single_rows(keep_mb, costs, fresh_embedder):
    module = module_of(fresh_embedder().train(), Chunks(keep_mb=keep_mb))
    batch = prepared(module, mixed_pairs())
    expected = gradients(module, batch)
    longest = int(batch.chunks[0].lengths.max())
    small(module, longest * (1 + costs["backward"]), **costs)

    with counting() as work:
        ours = gradients(module, batch)

    # eight rows: from the second halving on, the longest share a chunk with nobody
    assert difference(ours, expected) < 1e-6
    assert work["chunks_halved"] >= 3


def test_what_was_computed_for_it_is_exact_and_what_did_not_fit_is_cut_beforehand(fresh_embedder):
    module = module_of(fresh_embedder().train(), Chunks(keep_mb=0))
    length = length_of(module)
    batch = prepared(module, equal_pairs())
    device = small(module, 4 * length)
    found = []
    for _ in range(2):
        with counting() as work:
            gradients(module, batch)
        found.append((work["language_rows"], work["chunks_halved"], device.failures))

    # eight rows that did not fit, and two passes over all of them; then the two passes alone
    assert found == [(24, 1, 1), (16, 1, 1)]


def test_a_second_pass_that_runs_out_is_begun_again(fresh_embedder):
    module = module_of(fresh_embedder().train(), Chunks(rows=4, keep_mb=0))
    length = length_of(module)
    batch = prepared(module, equal_pairs())
    device = small(module, 4 * length, **SECOND)
    found = []
    for _ in range(2):
        with counting() as work:
            gradients(module, batch)
        found.append((work["language_rows"], work["chunks_halved"], device.failures))

    # the first of the two chunks failed, and the whole step is taken again
    assert found == [(8 + 4 + 16, 2, 1), (16, 2, 1)]


def test_graphs_that_were_kept_are_given_up_before_any_chunk_is_cut(fresh_embedder):
    module = module_of(fresh_embedder().train(), Chunks(rows=4))
    length = length_of(module)
    batch = prepared(module, equal_pairs())
    expected = gradients(module, batch)
    device = small(module, 8 * length, **SECOND)
    found = []
    for _ in range(2):
        with counting() as work:
            ours = gradients(module, batch)
        assert difference(ours, expected) < 1e-6
        found.append((work["language_rows"], work["graphs_given_up"], work["chunks_halved"], device.failures))

    # both graphs fit, but not the backward pass beside them; from then on one of them is kept
    assert found == [(8 + 12, 1, 0, 1), (12, 0, 0, 1)]


def test_graphs_are_given_up_for_a_chunk_of_the_first_pass(fresh_embedder):
    module = module_of(fresh_embedder().train(), Chunks(rows=4))
    length = length_of(module)
    batch = prepared(module, equal_pairs())
    expected = gradients(module, batch)
    device = small(module, 6 * length)

    with counting() as work:
        ours = gradients(module, batch)

    assert difference(ours, expected) < 1e-6
    assert (work["graphs_given_up"], work["chunks_halved"], device.failures) == (1, 0, 1)
    # the second chunk again, then both
    assert work["language_rows"] == 4 + 4 + 4 + 8


def test_gradients_of_the_batches_before_are_put_back(fresh_embedder):
    module = module_of(fresh_embedder().train(), Chunks(keep_mb=0), optim=Optim(lr=1e-2, accumulate=2))
    batches = [prepared(module, pairs, number) for number, pairs in enumerate((equal_pairs(), mixed_pairs()))]
    expected = gradients(module, *batches)
    device = small(module, tokens(batches[0].chunks[0]) * 2, **SECOND)
    module.zero_grad()
    module.gradients(batches[0])
    assert device.failures == 0
    device.most = tokens(batches[1].chunks[0])

    module.gradients(batches[1])

    ours = {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
    assert device.failures >= 1
    assert difference(ours, expected) < 1e-6


@pytest.mark.parametrize("costs", [FIRST, SECOND], ids=["first pass", "second pass"])
def test_a_learned_temperature_has_the_gradient_it_would_have(costs, fresh_embedder):
    objective = Contrastive(temperature=0.1, learn=LearnedTemperature(lr=1e-2))
    module = module_of(fresh_embedder().train(), Chunks(keep_mb=0), objective=objective)
    batch = prepared(module, mixed_pairs())
    expected = gradients(module, batch)
    device = small(module, tokens(batch.chunks[0]) - 1, **costs)

    ours = gradients(module, batch)

    assert device.failures >= 1
    name = next(name for name in expected if name.startswith("objective."))
    assert ours[name].item() == pytest.approx(expected[name].item(), rel=1e-5)
    assert expected[name].abs() > 1e-3
    assert difference(ours, expected) < 1e-6


@pytest.mark.parametrize("keep_mb", [0, 4096])
@pytest.mark.parametrize("costs", [FIRST, SECOND], ids=["first pass", "second pass"])
def test_an_adapter_behind_a_frozen_tower_has_the_gradient_it_would_have(costs, keep_mb):
    module = module_of(lora_embedder(), Chunks(keep_mb=keep_mb), freeze=("model.visual",))
    batch = prepared(module, mixed_pairs())
    expected = gradients(module, batch)
    small(module, tokens(batch.chunks[0]) - 1, **costs)

    with counting() as work:
        ours = gradients(module, batch)

    # this adapter's gradient moves by 1.6e-6 where the chunks are of two rows from the start
    assert difference(ours, expected) < 3e-6
    assert work["chunks_halved"] >= 1
    # halves, second passes and the step taken again share the features of the whole
    assert work["tower_forwards"] == len(batch.chunks[0].media)


@pytest.mark.parametrize("costs", [FIRST, SECOND], ids=["first pass", "second pass"])
def test_with_dropout_the_gradient_is_that_of_one_draw_for_the_halves(costs):
    module = module_of(lora_embedder(dropout=0.1), Chunks(keep_mb=0))
    batch = prepared(module, equal_pairs())
    torch.manual_seed(5)
    embeddings = torch.cat([module.embedder(half) for half in halved(batch.chunks[0])])
    loss = module.objective(embeddings[batch.query_rows], embeddings[batch.target_rows], batch.candidates)
    loss.share.backward()
    expected = {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}
    device = small(module, tokens(batch.chunks[0]) - (costs is FIRST), **costs)

    torch.manual_seed(5)
    module.zero_grad()
    found, _ = module.gradients(batch)
    ours = {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}
    torch.manual_seed(6)
    other = gradients(module, batch)

    assert device.failures == 1
    assert found.value.item() == pytest.approx(loss.value.item(), rel=1e-6)
    assert difference(ours, expected) < 1e-5
    assert difference(other, expected) > 1e-2


def masked_captions():
    masked = ["$ on $", "$ on $ with $", "$", "$ riding $ near $"]
    captions = ["a dress on a table", "the dog on a beach with cats", "small house", "people riding near the river"]
    return [Pair(Item.of(m), (Item.of(c),), query_id=c) for m, c in zip(masked, captions, strict=True)]


def mapping_module():
    torch.manual_seed(3)
    prompt = RawPrompt(phrases=Phrases(both="a photo of $ that {text}"))
    settings = EmbedderSettings(DualEncoder(scratch=Scratch("clip")), prompt, Phi(places="all", dropout=0.0))
    chunks = Chunks(keep_mb=0)
    return module_of(Embedder(settings).train(), chunks, LinCirModule, objective=LinCIR(), freeze=("model",))


@pytest.mark.parametrize(("rows", "costs", "halvings"), [("filled", SECOND, 1), ("captions", FIRST, 2)])
def test_pseudo_words_have_the_gradient_they_would_have(rows, costs, halvings):
    module = mapping_module()
    batch = prepared(module, masked_captions())
    captions, filled = map(tokens, batch.chunks)
    assert batch.filled_chunks == 1
    expected = gradients(module, batch)
    layer = module.embedder.backbone.model.transformer.resblocks[0]
    # captions are longer; they are embedded first, without a graph, and what they teach holds for the rows to fill
    device = SmallMemory(layer, {"filled": captions, "captions": captions - 1}[rows], **costs)

    with counting() as work:
        ours = gradients(module, batch)

    assert captions > filled
    assert difference(ours, expected) < 1e-6
    assert (work["chunks_halved"], device.failures) == (halvings, 1)


@pytest.mark.parametrize("make", [lambda embedder: module_of(embedder().train(), Chunks()), lambda _: mapping_module()])
def test_validation_goes_on_in_halves_and_says_where_even_a_row_is_too_much(make, fresh_embedder):
    module = make(fresh_embedder)
    mapping = isinstance(module, LinCirModule)
    batch = replace(prepared(module, masked_captions() if mapping else mixed_pairs()), part="s")
    language = module.embedder.backbone
    layer = language.model.transformer.resblocks[0] if mapping else language.language_model.layers[0]
    longest = max(int(chunk.lengths.max()) for chunk in batch.chunks)
    expected, _ = validated(module, batch)
    device = SmallMemory(layer, max(map(tokens, batch.chunks)) - 1)

    found, work = validated(module, batch)

    assert found == pytest.approx(expected, rel=1e-5)
    assert (work["chunks_halved"] > 0, device.failures) == (True, 1)
    device.most = longest - 1
    with pytest.raises(InputError, match=rf"validation: s: expected rows that fit .* one row of {longest} tokens"):
        validated(module, batch)
    module.stage = replace(module.stage, chunks=Chunks(halve=False))
    with pytest.raises(InputError, match=r"validation: s: expected chunks that fit the memory, got out of memory"):
        validated(module, batch)


def validated(module, batch):
    """What a validation reports, and the work it did."""
    trainer = lightning.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    with warnings.catch_warnings(), counting() as work:
        warnings.filterwarnings("ignore", message=".*(does not have many workers|LeafSpec|eval mode).*")
        trainer.validate(module, DataLoader([batch], batch_size=None), verbose=False)
    return {name: float(value) for name, value in trainer.callback_metrics.items()}, work


def test_a_row_that_does_not_fit_alone_is_refused_in_words(fresh_embedder):
    module = module_of(fresh_embedder().train(), Chunks())
    batch = prepared(module, equal_pairs())
    length = int(batch.chunks[0].lengths.max())
    small(module, length - 1)

    with pytest.raises(
        InputError,
        match=rf"batch 0: expected rows that fit .* one row of {length} tokens \(CUDA out .*lower the backbone",
    ):
        module.gradients(batch)


@pytest.mark.parametrize("backward", [0, 1])
def test_halving_can_be_turned_off(backward, fresh_embedder):
    module = module_of(fresh_embedder().train(), Chunks(halve=False))
    batch = prepared(module, equal_pairs())
    small(module, tokens(batch.chunks[0]) - 1 + backward, backward=backward)

    with (
        counting() as work,
        pytest.raises(
            InputError, match=r"batch 0: expected chunks that fit .* 8 rows of up to \d+ tokens .*lower chunks"
        ),
    ):
        module.gradients(batch)

    assert work["chunks_halved"] == 0


def test_it_is_said_once(fresh_embedder, caplog):
    module = module_of(fresh_embedder().train(), Chunks(rows=4))
    said = []
    module.say = said.append
    small(module, length_of(module) * 2, **SECOND)

    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            gradients(module, prepared(module, equal_pairs()))

    assert [line for line in said if "cut in halves" in line] == [said[0]]
    assert said == [record.message for record in caplog.records]
    assert "dropout" in said[0]


def test_what_is_no_want_of_memory_stays_what_it_is(fresh_embedder):
    module = module_of(fresh_embedder().train(), Chunks())

    def fail():
        raise RuntimeError("something else")

    device = small(module, 1, allocate=fail)
    with pytest.raises(RuntimeError, match="something else"):
        module.gradients(prepared(module, equal_pairs()))
    assert device.failures == 1


def test_what_depends_on_the_rows_beside_it_is_not_cut(fresh_embedder):
    apart = QwenVL(path="x")
    assert rows_stand_apart(apart) and rows_stand_apart(replace(apart, quantize="nf4"))
    assert not rows_stand_apart(replace(apart, quantize="int8"))
    assert not rows_stand_apart(replace(apart, longrope_by="batch"))
    assert not rows_stand_apart(replace(apart, attention_policy="bidirectional", unpadded_causal=True))
    module = module_of(fresh_embedder().train(), Chunks())
    settings = module.embedder.settings
    module.embedder.settings = replace(settings, backbone=replace(settings.backbone, longrope_by="batch"))
    batch = prepared(module, equal_pairs())
    small(module, tokens(batch.chunks[0]) - 1)

    with pytest.raises(InputError, match=r"batch 0: expected chunks that fit the memory"):
        module.gradients(batch)
