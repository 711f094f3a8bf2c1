"""Textual inversion against the published loop, and a picture against itself in other company."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from mmembed import Embedder, Item
from mmembed.counters import counting
from mmembed.errors import InputError
from mmembed.models.identity import identity
from mmembed.models.sequence import collate
from mmembed.models.settings import DualEncoder, EmbedderSettings, Phrases, RawPrompt, Scratch, TextualInversion
from mmembed.models.textual_inversion import InversionComposer, read_phrases
from tests.models.backbones.dual_encoder.checkpoints import MAPPING, published

PHRASES = {
    "dog": ["a photo of dog that is on the beach", "dog sleeping"],
    "red bus": ["a photo of red bus that is parked near the red bus"],
    "wooden table": ["a photo of wooden table that shows"],
}


def inverting(directory=None, **settings):
    """A small embedder that inverts pictures."""
    backbone = DualEncoder(path=str(directory)) if directory else DualEncoder(scratch=Scratch("clip"))
    prompt = RawPrompt(phrases=Phrases(both="a photo of $ that {text}"))
    return Embedder(EmbedderSettings(backbone, prompt, TextualInversion(**settings))).eval()


@pytest.fixture
def phrases(tmp_path):
    def write(values):
        path = tmp_path / "phrases.json"
        path.write_text(json.dumps(values))
        return str(path)

    return write


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return published(tmp_path_factory.mktemp("golden") / "checkpoint")


def published_loop(clip, read, start, vectors, sentences, steps):
    """Losses, pseudo-words and their average by SEARLE's loop, on open_clip's own text tower.

    ``sentences`` are for each picture: its template, the phrase with the word and the phrase as it was.
    """
    spelt, replaced, plain = (torch.tensor([padded(read(row[i])) for row in sentences]) for i in range(3))
    words = torch.nn.Parameter(start.clone())
    average = start.clone()
    optimizer = torch.optim.AdamW([words], lr=2e-2, weight_decay=0.01)
    criterion, same = torch.nn.CosineEmbeddingLoss(), torch.ones(len(vectors))

    def encode(ids):
        embeds = clip.token_embedding(ids).detach()
        at = (ids == 259).int().argmax(1)
        embeds = embeds.index_put((torch.arange(len(ids)), at), words)
        handle = clip.token_embedding.register_forward_hook(lambda *_: embeds)
        out = clip.encode_text(ids)
        handle.remove()
        return out

    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        first = criterion(encode(spelt), vectors, same)
        second = criterion(encode(replaced), clip.encode_text(plain).detach(), same)
        loss = (1.0 * first + 0.5 * second) / 1.5
        loss.backward()
        optimizer.step()
        average = 0.99 * average + (1 - 0.99) * words.detach()
        losses.append(loss.detach())
    return torch.stack(losses), words.detach(), average


def padded(ids):
    return [*ids, *[0] * (77 - len(ids))]


def test_loss_steps_and_average_are_those_of_the_published_loop(checkpoint, phrases):
    settings = {"steps": 3, "templates": ("This is a photo of a {}",)}
    vectors = 2 * torch.randn(3, 24)
    sentence = ("This is a photo of a  $ ", "a photo of  $  that is parked near the red bus", PHRASES["red bus"][0])
    model = inverting(checkpoint, phrases=phrases({"red bus": PHRASES["red bus"]}), **settings)
    last = InversionComposer(TextualInversion(**settings, ema=0, phrases=model.settings.pooler.phrases), 259)
    start = model.pooler.start(3, 16)

    ours = model.pooler.words(vectors, model.backbone)

    for i in range(3):
        clip, read = model.backbone.model, model.backbone.preprocessor.read
        losses, words, average = published_loop(clip, read, start[i : i + 1], vectors[i : i + 1], [sentence], 3)
        assert (ours[i] - average[0]).abs().max() <= 1e-5
        assert (last.words(vectors[i : i + 1], model.backbone) - words).abs().max() <= 1e-5
        assert losses[2] < losses[0]


def test_the_loss_of_several_pictures_is_the_published_one(checkpoint):
    model = inverting(checkpoint)
    texts = json.loads((MAPPING / "inputs.json").read_text())["texts"]
    start = torch.tensor(np.load(MAPPING / "inputs.npz")["oti_init"])
    vectors = load_file(MAPPING / "golden.safetensors")["image_features"][:3]
    sentences = list(zip(texts["oti_template"], texts["oti_rep"], texts["oti_reg"], strict=True))

    ours = model.pooler.loss(
        start, vectors, [row[0].replace(" $ ", "{}") for row in sentences],
        [(concept, row[2]) for concept, row in zip(PHRASES, sentences, strict=True)], model.backbone,
    )  # fmt: skip

    read = model.backbone.preprocessor.read
    theirs = published_loop(model.backbone.model, read, start, vectors, sentences, 1)[0][0]
    assert (ours.mean() - theirs).abs() <= 1e-6


def test_a_fitted_word_is_nearer_to_its_picture_than_the_start(picture):
    model = inverting(steps=40, ema=0.9)
    vectors = model.backbone.media(model.backbone.embed(*batch_of(model, picture)))[0].detach()
    templates = [model.settings.pooler.templates[0]] * 2

    words = model.pooler.words(vectors, model.backbone)

    before = model.pooler.loss(model.pooler.start(2, 64), vectors, templates, [], model.backbone)
    after = model.pooler.loss(words, vectors, templates, [], model.backbone)
    assert (after < before - 0.02).all()
    assert (words[0] - words[1]).norm() > 0.1


def batch_of(model, picture):
    batch = collate(model.prepare([Item.of(picture(56, 56, seed)) for seed in (1, 2)], "query"))
    return batch, model.vision(batch)


def test_the_same_picture_becomes_the_same_word_in_any_company(picture):
    model = inverting(steps=20, ema=0.5)
    items = [{"image": picture(56, 56, i % 3), "text": text} for i, text in enumerate(["is red", "x", "y", "z", "w"])]

    together = model.encode([*items, "text", picture(50, 50)])

    alone = torch.cat([model.encode([item], batch_tokens=1) for item in items])
    assert (together[:5] - alone).abs().max() <= 1e-5
    assert torch.equal(model.encode([*items, "text", picture(50, 50)]), together)


def test_every_text_of_the_optimisation_is_counted_and_a_picture_is_inverted_once(picture, phrases):
    items = [{"image": picture(56, 56, 1), "text": text} for text in ("is red", "is blue")]
    plain, regular = inverting(steps=4), inverting(steps=4, phrases=phrases(PHRASES))

    with counting() as work:
        plain.encode(items)
    with counting() as more:
        regular.encode(items)

    assert (work["tower_forwards"], more["tower_forwards"]) == (1, 1)
    assert work["language_rows"] == 4 + 2
    # the directions of three concepts in 24 templates, and for a step the template and the phrase twice
    assert more["language_rows"] == 3 * 24 + 3 * 4 + 2
    with counting() as again:
        regular.encode(items)
    assert again["language_rows"] == 3 * 4 + 2


def test_directions_of_concepts_are_forgotten_with_the_weights_they_were_made_of(picture, phrases):
    model = inverting(steps=1, phrases=phrases(PHRASES))
    item = {"image": picture(56, 56), "text": "x"}
    model.encode(item)
    with torch.no_grad():
        model.backbone.text.table.weight.mul_(1.1)

    with counting() as work:
        model.encode(item)

    assert work["language_rows"] == 3 * 24 + 3 + 1


def test_phrases_are_those_of_the_concepts_most_like_the_picture(checkpoint, phrases):
    model = inverting(checkpoint, concepts=2, phrases=phrases(PHRASES))
    directions = []
    for concept in PHRASES:
        texts = [template.format(concept) for template in model.settings.pooler.templates]
        directions.append(F.normalize(model.encode(texts).mean(0), dim=-1))
    vectors = 3 * torch.randn(4, 24)

    near = model.pooler.near(vectors, model.backbone)

    for vector, found in zip(F.normalize(vectors, dim=-1), near, strict=True):
        best = sorted(PHRASES, key=lambda c, v=vector: -float(directions[list(PHRASES).index(c)] @ v))[:2]
        assert found == [(concept, phrase) for concept in best for phrase in PHRASES[concept]]


def test_phrases_change_the_word_and_the_identity(checkpoint, phrases, picture):
    item = {"image": picture(56, 56), "text": "is red"}
    plain = inverting(checkpoint, steps=5)
    regular = inverting(checkpoint, steps=5, phrases=phrases(PHRASES))
    vector, name = regular.encode(item), identity(regular)

    other = inverting(checkpoint, steps=5, phrases=phrases({"dog": ["a photo of dog at night"]}))

    assert (plain.encode(item) - vector).norm() > 1e-3
    assert (other.encode(item) - vector).norm() > 1e-4
    changed = {key for key, value in identity(other).items() if name[key] != value}
    assert changed == {"phrases"}
    assert "phrases" not in identity(plain)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_nothing_of_the_optimisation_reaches_the_towers(mode, picture):
    model = inverting(steps=2)
    before = {name: value.clone() for name, value in model.state_dict().items()}

    with mode():
        model.encode({"image": picture(56, 56), "text": "x"})

    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_seed_is_a_start_of_its_own(picture):
    item = {"image": picture(56, 56), "text": "x"}
    first, second = (inverting(steps=3, seed=seed).encode(item) for seed in (0, 1))

    assert (first - second).norm() > 1e-3
    numbers = inverting(init_std=0.02).pooler.start(2, 10000)
    assert torch.equal(numbers[0], numbers[1])
    assert float(numbers.std()) == pytest.approx(0.02, rel=0.05)


def test_there_are_no_weights_and_a_saved_model_needs_none(tmp_path, picture):
    model = inverting(steps=2)
    model.save(tmp_path / "saved")

    again = Embedder.from_pretrained(tmp_path / "saved", device="cpu")

    item = {"image": picture(56, 56), "text": "x"}
    assert not (tmp_path / "saved/pooler.safetensors").exists()
    assert torch.equal(again.encode(item), model.encode(item))


def test_the_published_templates_are_two_dozen_and_speak_of_pictures():
    assert len(set(TextualInversion().templates)) == 24


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"steps": 0}, r"pooler\.steps: expected at least 1, got 0"),
        ({"concepts": 0}, r"pooler\.concepts: expected at least 1, got 0"),
        ({"templates": ("a photo",)}, r"pooler\.templates: expected sentences with '\{\}' once"),
        ({"templates": ()}, r"pooler\.templates: expected sentences"),
        ({"ema": 1.0}, r"pooler\.ema: expected from 0 to below 1, got 1\.0"),
        ({"cos_weight": 0.0, "phrase_weight": 0.0}, r"pooler\.cos_weight: expected above 0"),
    ],
)
def test_settings_that_fit_nothing_are_refused(values, message):
    with pytest.raises(InputError, match=message):
        TextualInversion(**values)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", r"a JSON file \{concept: .*got list"),
        ("{}", "a JSON file"),
        ("not json", "a JSON file .*got Expecting value"),
        ('{"dog": "a dog"}', "dog: expected a list of phrases"),
        ('{"dog": []}', "dog: expected a list of phrases"),
        ('{"dog": ["a cat"]}', r"dog: expected phrases with the concept.* got 'a cat'; leave"),
        ('{"dog": ["for $ 5 a dog"]}', r"dog: .* and without '\$', got 'for \$ 5 a dog'"),
    ],
)
def test_a_file_of_phrases_that_cannot_be_used_is_refused(text, message, tmp_path):
    (tmp_path / "phrases.json").write_text(text)

    with pytest.raises(InputError, match=message):
        read_phrases(tmp_path / "phrases.json", "$")


def test_a_file_of_phrases_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"none\.json: expected a JSON file"):
        inverting(phrases=str(tmp_path / "none.json"))
