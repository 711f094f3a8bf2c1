"""One step of training: what it changes, what it computes once, what it refuses."""

import warnings

import lightning
import pytest
import torch
from lightning.fabric.utilities.warnings import PossibleUserWarning
from torch.utils.data import DataLoader

from mmembed import Embedder, Item, Pair, Video
from mmembed.counters import counting
from mmembed.errors import DivergenceError, InputError
from mmembed.items import Negative
from mmembed.losses.settings import Contrastive, LearnedTemperature
from mmembed.models.settings import EmbedderSettings, Lora, QwenVL, RawPrompt
from mmembed.training.batches import PairPreparer
from mmembed.training.module import EmbedderModule, freeze
from mmembed.training.optim import clip_gradients
from mmembed.training.settings import Chunks, Optim, PartRates, Stage

FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")
CUTS = [Chunks(rows=2, keep_mb=0), Chunks(rows=3, keep_mb=1), Chunks(tokens=60, keep_mb=0), Chunks(rows=1)]


@pytest.fixture
def pairs(picture):
    """Text, pictures and clips on both sides; one picture stands in three places, one text in two."""
    shared, other = picture(56, 84), picture(84, 56)
    frames = tuple(picture(56, 56, seed) for seed in range(4))
    clip, short = Item.of({"video": Video(frames)}, "What?"), Item.of({"video": Video(frames[:2]), "text": "short"})
    hard = Negative(Item.of({"image": shared, "text": "not this"}))
    rows = [
        (Item.of("a red circle"), Item.of({"image": shared}), ()),
        (Item.of({"image": shared, "text": "but blue"}), Item.of({"image": other}), ()),
        (clip, Item.of("a moving circle"), ()),
        (Item.of("the same words"), short, (hard,)),
        (Item.of("the same words"), Item.of("another answer"), ()),
    ]
    return [Pair(q, (target,), hard, query_id=str(i), source="s") for i, (q, target, hard) in enumerate(rows)]


def module_of(embedder, chunks=None, **stage):
    settings = {"steps": 4, "objective": Contrastive(temperature=0.1), "optim": Optim(lr=1e-2)} | stage
    return EmbedderModule(embedder, Stage({}, chunks=chunks or Chunks(), **settings), seed=0)


def prepared(module, pairs, step=0):
    return PairPreparer(module.embedder.backbone.preprocessor, module.stage.chunks)(step, pairs)


def gradients_of(module):
    return {name: p.grad for name, p in module.embedder.named_parameters() if p.grad is not None}


def difference(ours, theirs):
    """Largest difference between two gradients, as a share of the largest entry."""
    assert ours.keys() == theirs.keys()
    largest = max(g.abs().max() for g in theirs.values())
    return (max((ours[name] - g).abs().max() for name, g in theirs.items()) / largest).item()


@pytest.mark.parametrize("family", FAMILIES)
def test_mixed_batches_have_the_same_gradient_however_they_are_cut(family, pairs, fresh_embedder):
    embedder = fresh_embedder(family).train()
    plain = module_of(embedder)
    loss, _ = plain.gradients(prepared(plain, pairs))
    expected = {name: g.clone() for name, g in gradients_of(plain).items()}

    for chunks in CUTS:
        embedder.zero_grad()
        cut = module_of(embedder, chunks)
        ours, _ = cut.gradients(prepared(cut, pairs))
        assert ours.value.item() == pytest.approx(loss.value.item(), rel=1e-5)
        assert difference(gradients_of(cut), expected) < 1e-4


def direct_gradients(module, batch):
    """The slow twin: every chunk with its graph, one backward pass through all of it."""
    module.zero_grad()
    embeddings = torch.cat([module.embedder(chunk) for chunk in batch.chunks])
    loss = module.objective(embeddings[batch.query_rows], embeddings[batch.target_rows], batch.candidates)
    loss.share.backward()
    return {name: g.clone() for name, g in gradients_of(module).items()}


def lora_embedder(golden, **lora):
    settings = EmbedderSettings(
        QwenVL(path=str(golden / "vlm2vec/qwen2_5_vl"), positions="sequential"), RawPrompt(), lora=Lora(r=4, **lora)
    )
    return Embedder(settings).train()


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("keep_mb", [0, 4096])
def test_adapter_dropout_repeats_itself_in_the_second_pass(dora, keep_mb, golden, pairs):
    module = module_of(lora_embedder(golden, dropout=0.1, dora=dora), Chunks(rows=2, keep_mb=keep_mb))
    batch = prepared(module, pairs)
    torch.manual_seed(5)
    expected = direct_gradients(module, batch)
    torch.manual_seed(6)
    other = direct_gradients(module, batch)

    module.zero_grad()
    torch.manual_seed(5)
    module.gradients(batch)

    assert difference(gradients_of(module), expected) < 1e-5
    assert difference(other, expected) > 1e-2


class Watch(lightning.Callback):
    def __init__(self):
        self.reports = []

    def on_train_batch_end(self, trainer, module, *_):
        self.reports.append(module.report)


def fit(module, batches, validation=None, **choices):
    watch = Watch()
    choices = {"max_steps": len(batches)} | choices
    trainer = lightning.Trainer(
        accelerator="cpu", devices=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, callbacks=[watch], **choices,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PossibleUserWarning)
        loaders = None if validation is None else DataLoader(validation, batch_size=None)
        trainer.fit(module, DataLoader(batches, batch_size=None), loaders)
    return watch.reports, trainer


def weights_of(module):
    return {name: p.detach().clone() for name, p in module.embedder.named_parameters()}


@pytest.mark.parametrize("family", FAMILIES)
def test_one_step_changes_every_weight(family, pairs, fresh_embedder):
    module = module_of(fresh_embedder(family))
    before, batch = weights_of(module), prepared(module, pairs)

    fit(module, [batch])

    after = weights_of(module)
    unchanged = [name for name, weight in after.items() if torch.equal(weight, before[name])]
    assert unchanged == []
    used = torch.cat([chunk.ids for chunk in batch.chunks]).unique()
    table = next(name for name in after if name.endswith("embed_tokens.weight"))
    changed = (after[table] != before[table]).any(1).nonzero()[:, 0]
    geometry = module.embedder.backbone.preprocessor.geometry
    assert set(changed.tolist()) == set(used.tolist()) - {geometry.image_id, geometry.video_id}


def test_one_step_changes_every_weight_of_an_adapter_and_none_of_its_base(golden, pairs):
    module = module_of(lora_embedder(golden, dropout=0.0, dora=True))
    before = weights_of(module)

    # at first the B matrices are zero, so the A matrices move from the second step on
    fit(module, [prepared(module, pairs, step) for step in range(2)])

    changed = {name for name, weight in weights_of(module).items() if not torch.equal(weight, before[name])}
    assert changed == {name for name in before if "lora_" in name}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_frozen_tower_runs_once_for_each_picture_and_keeps_its_bits(family, pairs, fresh_embedder):
    module = module_of(fresh_embedder(family), Chunks(rows=2, keep_mb=0), freeze=("model.visual",))
    before, batch = weights_of(module), prepared(module, pairs)
    distinct = {name for chunk in batch.chunks for name in chunk.media}
    assert sum(len(chunk.media) for chunk in batch.chunks) > len(distinct)

    with counting() as work:
        fit(module, [batch])

    assert work["tower_forwards"] == len(distinct) == 4
    assert work["language_rows"] == 2 * sum(len(chunk) for chunk in batch.chunks)
    changed = {name for name, weight in weights_of(module).items() if not torch.equal(weight, before[name])}
    assert changed == {name for name in before if ".visual." not in name}


@pytest.mark.parametrize("family", FAMILIES)
def test_kept_features_of_a_frozen_tower_give_the_gradient_of_the_whole_path(family, pairs, fresh_embedder):
    module = module_of(fresh_embedder(family), Chunks(rows=2, keep_mb=0), freeze=("model.visual",))
    batch = prepared(module, pairs)
    expected = direct_gradients(module, batch)

    module.zero_grad()
    module.gradients(batch)

    assert difference(gradients_of(module), expected) < 1e-5


def test_chunks_that_are_kept_are_encoded_once_and_equal_rows_once(pairs, fresh_embedder):
    embedder = fresh_embedder().train()
    rows = []
    for keep_mb in (0, 4096):
        module = module_of(embedder, Chunks(rows=2, keep_mb=keep_mb))
        with counting() as work:
            module.gradients(prepared(module, pairs))
        rows.append(work["language_rows"])

    # five queries, two of them equal, and six targets
    assert rows == [20, 10]


def test_a_step_is_a_function_of_seed_and_step(golden, pairs):
    results = []
    for noise in (1, 2):
        module = module_of(lora_embedder_with_seed(golden), Chunks(rows=2, keep_mb=0))
        torch.manual_seed(noise)
        fit(module, [prepared(module, pairs, step=5)])
        results.append(weights_of(module))

    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])


def lora_embedder_with_seed(golden):
    torch.manual_seed(0)
    return lora_embedder(golden, dropout=0.5)


def test_training_learns_the_batch_and_logs_each_step(pairs, fresh_embedder):
    module = module_of(fresh_embedder(), optim=Optim(lr=1e-2, schedule="constant"), steps=8)

    reports, trainer = fit(module, [prepared(module, pairs, step) for step in range(8)])

    first, last = reports[0], reports[-1]
    chunks = prepared(module, pairs).chunks
    assert last.values["loss"] < first.values["loss"] / 4
    assert first.values["lr"] == pytest.approx(1e-2)
    assert first.tokens == sum(int(chunk.lengths.sum()) for chunk in chunks)
    assert first.padded == sum(len(chunk) * int(chunk.lengths.max()) for chunk in chunks)
    assert (first.items, first.sources) == (11, {"s": 5})
    # in each direction of the two equal queries the other's positive is masked
    assert first.values["masked"] == pytest.approx(2 / 30)
    assert [report.step for report in reports] == list(range(1, 9))
    assert trainer.callback_metrics["loss"] == pytest.approx(last.values["loss"])
    losses = [loss for _, loss in first.hardest]
    assert losses == sorted(losses, reverse=True)
    assert {name for name, _ in first.hardest} == {f"s:{i}" for i in range(5)}
    assert sum(losses) / 5 == pytest.approx(first.values["loss"])


def test_the_gradient_is_clipped_to_the_norm_given(pairs, fresh_embedder):
    norms = []
    for limit in (None, 1e-3):
        module = module_of(fresh_embedder(), optim=Optim(clip_norm=limit))
        module.gradients(prepared(module, pairs))
        whole = clip_gradients(module.trained().values(), limit)
        norms.append((whole.item(), torch.stack([g.norm() for g in gradients_of(module).values()]).norm().item()))

    assert norms[0][0] == pytest.approx(norms[0][1], rel=1e-4)
    assert norms[1][0] == pytest.approx(norms[0][0], rel=1e-4)
    assert norms[1][1] == pytest.approx(1e-3, rel=1e-3)


def test_mixed_precision_trains_every_weight(pairs, fresh_embedder):
    module = module_of(fresh_embedder(), Chunks(rows=2, keep_mb=0))
    before = weights_of(module)

    fit(module, [prepared(module, pairs)], precision="bf16-mixed")

    assert [name for name, weight in weights_of(module).items() if torch.equal(weight, before[name])] == []
    assert {p.dtype for p in module.parameters()} == {torch.float32}


def test_a_loss_that_is_no_number_stops_before_the_step_and_names_the_rows(pairs, fresh_embedder):
    module = module_of(fresh_embedder())
    batch = prepared(module, pairs)
    with torch.no_grad():
        module.embedder.backbone.model.visual.patch_embed.proj.weight.fill_(float("nan"))
    before = weights_of(module)

    with pytest.raises(
        DivergenceError,
        match=r"batch 0: expected a finite loss and gradient, got loss nan; .*: s:0, s:1, s:2, s:3; lower",
    ):
        fit(module, [batch])

    assert all(torch.equal(w.nan_to_num(7), before[name].nan_to_num(7)) for name, w in weights_of(module).items())


def test_a_hard_negative_that_is_no_number_names_its_query(pairs, fresh_embedder):
    module = module_of(fresh_embedder())
    batch = prepared(module, pairs)
    hard = int((~batch.candidates.positive).nonzero()[0, 0])
    forward = module.embedder.forward

    def spoiled(chunk, features=None):
        embeddings = forward(chunk, features).clone()
        embeddings[batch.target_rows[hard]] = float("nan")
        return embeddings

    module.embedder.forward = spoiled

    with pytest.raises(DivergenceError, match="not finite: s:3; lower"):
        fit(module, [batch])


def test_a_gradient_that_is_no_number_stops_before_the_step(pairs, fresh_embedder):
    module = module_of(fresh_embedder())
    before = weights_of(module)
    module.embedder.backbone.model.language_model.norm.weight.register_hook(lambda gradient: gradient * float("inf"))

    with pytest.raises(
        DivergenceError,
        match=r"got loss \d.* and gradient norm (nan|inf); rows of the largest loss: s:\d(, s:\d){4}; lower",
    ):
        fit(module, [prepared(module, pairs)])

    assert all(torch.equal(weight, before[name]) for name, weight in weights_of(module).items())


def test_validation_reports_loss_and_hits(pairs, fresh_embedder):
    module = module_of(fresh_embedder(), Chunks(rows=2))
    held_out = prepared(module, pairs)

    _, trainer = fit(module, [prepared(module, pairs, step) for step in range(4)], [held_out])

    module.eval()
    with torch.no_grad():
        embeddings = torch.cat([module.embedder(chunk) for chunk in held_out.chunks])
    scores = embeddings[held_out.query_rows] @ embeddings[held_out.target_rows].T
    labels = held_out.candidates.labels.tolist()
    hits = [float(row.argmax() == label) for row, label in zip(scores, labels, strict=True)]
    reported = {name: float(value) for name, value in trainer.callback_metrics.items()}
    assert reported["val/hit@1"] == pytest.approx(sum(hits) / len(hits))
    assert reported["val/hit@1/s"] == reported["val/hit@1"]
    loss = module.objective(embeddings[held_out.query_rows], embeddings[held_out.target_rows], held_out.candidates)
    assert reported["val/loss"] == pytest.approx(loss.value.item(), rel=1e-4)


def test_each_stage_chooses_anew_what_trains(golden, fresh_embedder):
    whole, adapter = fresh_embedder(), lora_embedder(golden)
    everything = {name for name, _ in whole.named_parameters()}
    adapted = {name for name, _ in adapter.named_parameters() if "lora_" in name}
    for embedder, trainable in ((whole, everything), (adapter, adapted)):
        freeze(embedder, ("model.visual",))
        assert trains(embedder) == {name for name in trainable if ".visual." not in name}
        freeze(embedder, ())
        assert trains(embedder) == trainable


def trains(embedder):
    return {name for name, parameter in embedder.named_parameters() if parameter.requires_grad}


def test_freezing_an_unknown_part_names_the_known_ones(scratch_embedder):
    with pytest.raises(
        ValueError, match=r"freeze: expected the beginning .*, got 'model\.vision'; did you mean 'model\.visual'"
    ):
        freeze(scratch_embedder("qwen2_vl"), ("model.vision",))


def test_accumulation_averages_the_gradients_of_batches_that_do_not_see_each_other(pairs, fresh_embedder):
    torch.manual_seed(0)
    module = module_of(fresh_embedder(), optim=Optim(lr=1e-2, accumulate=2))
    batches = [prepared(module, part, step) for step, part in enumerate((pairs[:3], pairs[3:]))]
    expected = {}
    for batch in batches:
        for name, gradient in direct_gradients(module, batch).items():
            expected[name] = expected.get(name, 0) + gradient / 2

    reports, trainer = fit(module, batches, max_steps=1)

    norm = torch.stack([gradient.norm() for gradient in expected.values()]).norm().item()
    assert trainer.global_step == 1
    assert reports[0] is None
    assert (reports[1].step, reports[1].sources) == (1, {"s": 5})
    assert reports[1].values["grad_norm"] == pytest.approx(norm, rel=1e-4)


@pytest.mark.parametrize(
    "choice",
    [
        {"optim": Optim(lr=1e-2, ema=0.9)},
        {"optim": Optim(lr=1e-2, accumulate=1)},
        {"optim": Optim(lr=1e-2, parts={"model.visual": PartRates(lr=1e-2)})},
        {"objective": Contrastive(temperature=0.1, margin=float("inf"))},
        {"objective": Contrastive(temperature=0.1, block_rows=64)},
        {"objective": Contrastive(temperature=0.1, in_batch="batch", share_negatives=True, positives="log_sum")},
        {"diverged": None},
    ],
    ids=["ema", "accumulate", "parts", "margin", "blocks", "scope", "diverged"],
)
def test_a_component_at_its_identity_changes_no_bit(choice, pairs, fresh_embedder):
    found = []
    for stage in ({}, choice):
        torch.manual_seed(0)
        module = module_of(fresh_embedder(), Chunks(rows=2, keep_mb=0), **stage)
        fit(module, [prepared(module, pairs, step) for step in range(2)])
        found.append(weights_of(module))

    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_the_average_follows_the_weights_and_without_decay_is_them(pairs, fresh_embedder):
    averages = {}
    for decay in (0.0, 0.5):
        torch.manual_seed(0)
        module = module_of(fresh_embedder(), optim=Optim(lr=1e-2, ema=decay))
        start = weights_of(module)
        fit(module, [prepared(module, pairs)])
        averages[decay] = {name.removeprefix("embedder."): t for name, t in module.ema.state_dict().items()}

    after = weights_of(module)
    assert all(torch.equal(averages[0.0][name], after[name]) for name in after)
    for name, average in averages[0.5].items():
        torch.testing.assert_close(average, (start[name] + after[name]) / 2)


def test_a_learned_temperature_trains_at_its_own_rate_inside_its_bounds(pairs, fresh_embedder):
    temperatures = []
    for learned in (LearnedTemperature(lr=1e-3), LearnedTemperature(lr=10.0, low=0.05, high=0.2)):
        module = module_of(fresh_embedder(), objective=Contrastive(temperature=0.1, learn=learned))
        reports, _ = fit(module, [prepared(module, pairs, step) for step in range(3)])
        temperatures.append([report.values["temperature"] for report in reports])

    gentle, wild = temperatures
    assert gentle[0] == pytest.approx(0.1)
    assert 0 < abs(gentle[2] - 0.1) < 1e-3
    assert wild[1] in (pytest.approx(0.05), pytest.approx(0.2))


def test_a_batch_without_any_negative_is_refused(pairs, fresh_embedder):
    module = module_of(fresh_embedder(), objective=Contrastive(in_batch="own"))
    alone = [pair for pair in pairs if not pair.negatives]

    with pytest.raises(InputError, match="batch 4: expected a negative for at least one query, got none"):
        fit(module, [prepared(module, alone, step=4)])

    # one hard negative in the batch is enough
    fit(module_of(fresh_embedder(), objective=Contrastive(in_batch="own")), [prepared(module, pairs)])


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory")],
)
@pytest.mark.parametrize("call", [1, 4])
def test_a_chunk_that_does_not_fit_the_memory_says_what_to_lower(error, call, pairs, fresh_embedder):
    module = module_of(fresh_embedder(), Chunks(rows=3, keep_mb=0, halve=False))
    calls = []

    def run_out(*_):
        calls.append(1)
        if len(calls) == call:
            raise error

    module.embedder.register_forward_pre_hook(run_out)

    with pytest.raises(InputError, match=r"batch 0: expected chunks that fit .* 3 rows of up to \d+ tokens .*lower ch"):
        fit(module, [prepared(module, pairs)])


def test_another_runtime_error_stays_what_it_is(pairs, fresh_embedder):
    module = module_of(fresh_embedder())

    def fail(*_):
        raise RuntimeError("something else")

    module.embedder.register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="something else"):
        fit(module, [prepared(module, pairs)])
