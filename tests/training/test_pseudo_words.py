"""Training a mapping network: published losses and gradients, what moves, what a step depends on, what is refused."""

import json
import warnings
from dataclasses import replace

import lightning
import numpy as np
import pytest
import torch
from lightning.fabric.utilities.warnings import PossibleUserWarning
from safetensors.torch import load_file
from torch.utils.data import DataLoader

from mmembed import Embedder, Item, Pair
from mmembed.counters import counting
from mmembed.errors import InputError
from mmembed.items import Negative
from mmembed.losses.settings import Contrastive, Distillation, LinCIR
from mmembed.models.prompts import Kind
from mmembed.models.settings import DualEncoder, EmbedderSettings, Phi, Phrases, RawPrompt, Scratch, Sum
from mmembed.training.batches import PairPreparer
from mmembed.training.inspection import view_rows
from mmembed.training.module import EMBEDDING
from mmembed.training.pseudo_words import WORDS, LinCirModule, make_module
from mmembed.training.settings import Chunks, Optim, Stage
from mmembed.training.teachers import read_teachers, write_teachers
from tests.cases import draw
from tests.models.backbones.dual_encoder.checkpoints import MAPPING, published
from tests.training.small_memory import SmallMemory

PROMPT = RawPrompt(phrases=Phrases(both="a photo of $ that {text}"))
MASKED = [
    ("$ on $", "a red dress on a wooden table"),
    ("$ on $ with $", "the dog on the beach with two cats"),
    ("$", "small house"),
    ("$ riding $ near $", "people riding bicycles near the river"),
    ("$ on $", "a blue cross on a hill"),
]
CUTS = [Chunks(rows=2, keep_mb=0), Chunks(rows=1, keep_mb=1), Chunks(tokens=40, keep_mb=0)]
NETWORK = "embedder.pooler.network."


def caption_pairs(rows=MASKED):
    return [Pair(Item.of(m), (Item.of(c),), query_id=str(i), source="s") for i, (m, c) in enumerate(rows)]


def picture_pairs():
    phrases = [(f"a photo of {thing} that is {where}", f"a photo of $ that is {where}") for thing, where in
               [("dog", "on the beach"), ("red bus", "parked"), ("table", "here"), ("cat", "asleep")]]  # fmt: skip
    return [
        Pair(Item.of({"image": draw(56, 56, i)}), tuple(map(Item.of, both)), query_id=str(i), source="s")
        for i, both in enumerate(phrases)
    ]


def embedder_of(dropout=0.0, unit_input=False, **backbone):
    torch.manual_seed(3)
    given = backbone or {"scratch": Scratch("clip")}
    composer = Phi(places="all", dropout=dropout, unit_input=unit_input)
    return Embedder(EmbedderSettings(DualEncoder(**given), PROMPT, composer)).train()


def stage_of(objective, **stage):
    settings = {"steps": 3, "optim": Optim(lr=1e-2), "freeze": ("model",), "objective": objective} | stage
    return Stage({}, **settings)


def lincir(embedder, cls=LinCirModule, **stage):
    return cls(embedder, stage_of(LinCIR(), **stage), seed=5)


def distillation(embedder, folder, **stage):
    pairs = picture_pairs()
    words = torch.randn(len(pairs), embedder.backbone.word_width, generator=torch.Generator().manual_seed(1))
    write_teachers(folder / "teachers.safetensors", [pair.query for pair in pairs], words, embedder)
    return make_module(embedder, stage_of(Distillation(), **stage), seed=5, facts={}, data_root=folder)


def prepared(module, pairs, number=0):
    stage = module.stage
    prepare = PairPreparer(module.embedder.backbone.preprocessor, stage.chunks, filled=stage.objective.filled)
    return prepare(number, pairs)


def gradients_of(module):
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


def fit(module, batches, held_out=()):
    trainer = lightning.Trainer(
        max_steps=module.stage.steps, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip
    loaders = [DataLoader(rows, batch_size=None) for rows in (batches, held_out) if rows]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PossibleUserWarning)
        warnings.filterwarnings("ignore", message=".*(does not have many workers|validation_step|LeafSpec|eval mode).*")
        trainer.fit(module, *loaders)
    return trainer


class PublishedNoise(LinCirModule):
    """The numbers that the published code drew."""

    def noise(self, batch):
        with np.load(MAPPING / "inputs.npz") as arrays:
            return torch.tensor(arrays["lincir_u"])[:, None] * torch.tensor(arrays["lincir_eps"])


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return published(tmp_path_factory.mktemp("published") / "clip")


@pytest.mark.parametrize("chunks", [Chunks(), *CUTS])
@pytest.mark.parametrize("case", ["lincir_loss_eval", "lincir_loss_l2_normalize"])
def test_a_step_of_lincir_is_the_published_one(case, chunks, checkpoint):
    embedder = embedder_of(unit_input=case.endswith("normalize"), path=str(checkpoint))
    embedder.pooler.network.load_state_dict(load_file(MAPPING / "lincir_phi.safetensors"))
    module = lincir(embedder, cls=PublishedNoise, chunks=chunks)
    expected, arrays = (
        json.loads((MAPPING / "training.json").read_text())[case],
        load_file(MAPPING / "golden.safetensors"),
    )

    loss, rep = module.gradients(batch := prepared(module, caption_pairs(MASKED[:4])))

    assert loss.value.item() == pytest.approx(expected["value"], rel=1e-5)
    np.testing.assert_allclose(rep[WORDS], arrays[f"{case}.token"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(rep[EMBEDDING][batch.query_rows], arrays[f"{case}.replaced_embeds"], rtol=0, atol=1e-5)
    found = gradients_of(module)
    for name, gradient in found.items():
        wanted = arrays[f"{case}.grad.{name.removeprefix(NETWORK)}"]
        np.testing.assert_allclose(gradient, wanted, rtol=0, atol=1e-5)
    assert len(found) == 6


@pytest.mark.parametrize("make", [lambda e, folder: lincir(e), distillation])
def test_a_step_does_not_depend_on_the_chunks_though_the_network_drops(make, tmp_path):
    embedder = embedder_of(dropout=0.5)
    results = []
    for chunks in (Chunks(), *CUTS):
        module = make(embedder, tmp_path)
        module.stage = replace(module.stage, chunks=chunks)
        module.zero_grad()
        torch.manual_seed(9)
        pairs = caption_pairs() if isinstance(module, LinCirModule) else picture_pairs()
        loss, _ = module.gradients(prepared(module, pairs))
        results.append((loss.value.item(), gradients_of(module)))

    for value, gradients in results[1:]:
        assert value == pytest.approx(results[0][0], rel=1e-6)
        for name, gradient in gradients.items():
            torch.testing.assert_close(gradient, results[0][1][name], rtol=1e-4, atol=1e-6)


def test_the_gradient_of_distillation_is_that_of_the_whole_loss_at_once(tmp_path):
    module = distillation(embedder_of(), tmp_path, chunks=Chunks(rows=1, keep_mb=0))
    batch = prepared(module, picture_pairs())
    module.gradients(batch)
    cached = gradients_of(module)

    module.zero_grad()
    vectors = module._vectors(batch)
    words = module.composer.network(module._inputs(batch, vectors))
    encode = module._fill(words)
    filled = [encode(piece)[EMBEDDING] for piece in module._pieces(batch, len(vectors))]
    module._loss(batch, {EMBEDDING: torch.cat([vectors, *filled]), WORDS: words}).share.backward()

    for name, gradient in gradients_of(module).items():
        torch.testing.assert_close(cached[name], gradient, rtol=1e-4, atol=1e-6)


def test_each_picture_passes_the_tower_once_though_memory_runs_out(tmp_path):
    module = distillation(embedder_of(), tmp_path, chunks=Chunks(keep_mb=0, padding=None))
    batch = prepared(module, picture_pairs())
    module.gradients(batch)
    expected = gradients_of(module)
    mixed, _ = batch.chunks
    kinds = torch.split(mixed.kinds, mixed.lengths.tolist())
    texts = [len(row) for row in kinds if (row == Kind.TEXT).all()]
    # the pictures have passed the tower when the texts of their chunk run out
    text = module.embedder.backbone.model.transformer.resblocks[0]
    device = SmallMemory(text, len(texts) * max(texts) - 1)
    module.zero_grad()

    with counting() as work:
        module.gradients(batch)

    assert work["tower_forwards"] == len(picture_pairs())
    # the second half holds the texts, and is cut once more
    assert (work["chunks_halved"] >= 2, device.failures) == (True, 2)
    for name, gradient in gradients_of(module).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-6)


def test_equal_masked_captions_are_kept_apart_and_equal_captions_are_not():
    rows = [("$ left of $", "a dog left of a cat"), ("$ left of $", "a bus left of a tree"), MASKED[2], MASKED[2]]
    module = lincir(embedder_of())

    batch = prepared(module, caption_pairs(rows))
    _, rep = module.gradients(batch)

    assert len(set(batch.query_rows.tolist())) == 4
    assert len(set(batch.target_rows.tolist())) == 3
    assert batch.filled_chunks == 1
    masked = rep[EMBEDDING][batch.query_rows]
    assert not torch.allclose(masked[0], masked[1], atol=1e-4)


def test_noise_is_drawn_anew_for_each_batch_and_pair_whatever_stands_beside_it():
    module = lincir(embedder_of())
    pairs = caption_pairs()

    first, again = (module.noise(prepared(module, pairs, number=7)) for _ in range(2))
    part = module.noise(prepared(module, pairs[2:], number=7))
    other = module.noise(prepared(module, pairs, number=8))

    assert torch.equal(first, again)
    assert torch.equal(part, first[2:])
    assert (other != first).all()
    # u eps: the mean of u squared is 1/3, and u is one for a whole row, for a row's own mean is far from that
    many = module.noise(prepared(module, caption_pairs([("$", f"number {i}") for i in range(300)])))
    each = many.square().mean(1)
    assert each.mean().item() == pytest.approx(1 / 3, rel=0.1)
    assert each.std().item() > 0.2


@pytest.mark.parametrize("make", [lambda e, folder, **stage: lincir(e, **stage), distillation])
def test_only_the_network_trains_and_it_learns(make, tmp_path):
    embedder = embedder_of()
    module = make(embedder, tmp_path, steps=40, optim=Optim(lr=3e-3, ema=0.5), finish="ema")
    pairs = caption_pairs() if isinstance(module, LinCirModule) else picture_pairs()
    batches = [prepared(module, pairs, number) for number in range(40)]
    before = {name: value.clone() for name, value in embedder.state_dict().items()}
    module.eval()
    with torch.no_grad():
        untrained = module._loss(batches[0], module._embed(batches[0])).value.item()
    module.train()
    embedder.backbone.eval()

    trainer = fit(module, batches, [replace(batches[0], part="s")])

    moved = {name for name, value in embedder.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {f"pooler.network.layers.{i}.{kind}" for i in (0, 3, 6) for kind in ("weight", "bias")}
    metrics = trainer.callback_metrics
    assert metrics["val/loss"].item() < untrained / 2
    assert metrics["val/hit@1"].item() == 1.0
    assert module.report.values["loss"] > 0
    assert module.report.items == len(pairs) * (2 if isinstance(module, LinCirModule) else 3)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"pooler": Sum()}, "a composer with a mapping network"),
        ({"freeze": ("model.visual",)}, "freeze"),
        ({"strategy": "fsdp2"}, "ddp"),
        ({"pooler": Phi(places="first")}, "places"),
    ],
)
def test_what_does_not_train_a_network_alone_is_refused(change, words):
    settings = EmbedderSettings(DualEncoder(scratch=Scratch("clip")), PROMPT, change.pop("pooler", Phi(places="all")))

    with pytest.raises(InputError, match=words):
        lincir(Embedder(settings), **change)


@pytest.mark.parametrize("objective", [LinCIR(), Distillation()])
def test_a_pair_with_other_targets_is_refused(objective):
    preprocessor = embedder_of().backbone.preprocessor
    prepare = PairPreparer(preprocessor, Chunks(), filled=objective.filled)
    wrong = Pair(Item.of("$"), (Item.of("a cat"),), (Negative(Item.of("a dog")),), query_id="7", source="s")

    with pytest.raises(InputError, match="s: 7: target"):
        prepare(0, [wrong])


def test_a_text_whose_placeholder_the_context_cut_off_is_refused():
    embedder = embedder_of()
    token = embedder.pooler.placeholder
    prepare = PairPreparer(embedder.backbone.preprocessor, Chunks(), filled="query", placeholder=token)
    long = Pair(Item.of("and " * 80 + "$"), (Item.of("a cat"),), query_id="7", source="s")

    with pytest.raises(InputError, match="s: 7: expected the placeholder"):
        prepare(0, [long])
    assert prepare(0, caption_pairs()).filled_chunks == 1


def test_patches_of_a_dual_encoder_are_shown_as_such():
    embedder = embedder_of()
    batch = PairPreparer(embedder.backbone.preprocessor, Chunks(), filled="second")(0, picture_pairs()[:1])

    picture, phrase = view_rows(batch.chunks[0], embedder.backbone.preprocessor.tokenizer)

    assert [(span.words, span.repeats) for span in picture.spans] == [(("<patch>",), 16)]
    assert phrase.spans[0].words[1].strip() == "a"


def test_an_item_of_picture_and_text_is_refused():
    module = lincir(embedder_of())
    both = Pair(Item.of("$"), (Item.of({"image": draw(56, 56), "text": "a cat"}),), query_id="0", source="s")

    with pytest.raises(InputError, match="items of text or of media"):
        module.gradients(prepared(module, [both]))


def test_other_objectives_cut_and_train_as_before():
    embedder = embedder_of()
    module = make_module(embedder, Stage({}, 1, objective=Contrastive()), seed=0, facts={}, data_root=None)

    batch = prepared(module, caption_pairs())

    assert not isinstance(module, LinCirModule)
    # two masked captions are one row
    assert (batch.filled_chunks, sum(map(len, batch.chunks))) == (0, 9)


def test_teachers_of_another_model_or_without_a_picture_are_refused(tmp_path):
    path, embedder = tmp_path / "teachers.safetensors", embedder_of()
    module = distillation(embedder, tmp_path)
    other = Embedder(replace(embedder.settings, backbone=DualEncoder(scratch=Scratch("clip", seed=1))))

    with pytest.raises(InputError, match="other weights"):
        read_teachers(path, other)
    with pytest.raises(InputError, match="a file of pseudo-words"):
        read_teachers(tmp_path / "none", embedder)
    strange = replace(picture_pairs()[0], query=Item.of({"image": draw(56, 56, 99)}))
    with pytest.raises(InputError, match="none for s:0"):
        module.gradients(prepared(module, [strange]))
