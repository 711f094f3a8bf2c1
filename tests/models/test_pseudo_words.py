"""Pseudo-words: which word of which text a picture becomes, in what, and from which files."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import PreTrainedTokenizerFast

from mmembed import Embedder, Image, Item
from mmembed.counters import counting
from mmembed.errors import InputError
from mmembed.models.backbones.dual_encoder.tokens import single_token
from mmembed.models.pseudo_words import replaced
from mmembed.models.sequence import collate
from mmembed.models.settings import DualEncoder, EmbedderSettings, Phi, Phrases, Pic2Word, RawPrompt, Scratch, Sum
from tests.cases import WORDS
from tests.models.backbones.dual_encoder.checkpoints import MAKERS, MAPPING, by_open_clip, published

PHRASE = "a photo of $ that {text}"
# the tokenizers of these drop punctuation, or know few words
PLACEHOLDERS = {"bert": "circle", "siglip": "circle"}


def composed(composer=None, phrase=PHRASE, weights=None, *, path=None, normalize=True, **backbone):
    """A small embedder with a composer."""
    made = DualEncoder(path=str(path), **backbone) if path else DualEncoder(scratch=Scratch("clip"), **backbone)
    prompt = RawPrompt(phrases=Phrases(both=phrase))
    composer = composer or Phi(hidden=16)
    settings = EmbedderSettings(made, prompt, composer, pooler_weights=weights, normalize=normalize)
    return Embedder(settings, texts=WORDS).eval()


def always(model, word):
    """The embedder, its network made to give one word whatever the picture is."""
    last = model.pooler.network.layers[6]
    torch.nn.init.zeros_(last.weight)
    last.bias.data.copy_(word)
    return model


@pytest.fixture(scope="module")
def model():
    return composed()


@pytest.fixture
def items(picture):
    return [
        {"image": picture(56, 56, 1), "text": "is red"},
        "a text",
        {"image": picture(30, 70, 2)},
        {"image": picture(56, 56, 1), "text": "is much larger and shows two dogs on a beach"},
        {"image": [picture(50, 50, 3), picture(60, 50, 4)], "text": "is red"},
        {"video": [picture(50, 50, seed) for seed in range(3)], "text": "is at night"},
        {"image": picture(80, 50, 5), "text": ""},
    ]


def rows_of(model, items):
    return model.prepare([Item.of(item) for item in items], "query")


@pytest.mark.parametrize("name", MAKERS)
def test_a_word_of_its_own_vector_gives_the_text_vector_of_open_clip(name, tmp_path, picture):
    directory = MAKERS[name](tmp_path / "checkpoint")
    word = PLACEHOLDERS.get(name, "$")
    model = composed(Phi(placeholder=word), f"a red {word} that {{text}}", path=directory)
    token = model.pooler.placeholder
    changes = ["a red", "x", "a much longer text about one thing " * 20]

    ours = always(model, model.backbone.text.table.weight[token].detach()).encode(
        [{"image": picture(60, 40), "text": change} for change in changes]
    )

    theirs = by_open_clip(directory, [f"a red {word} that {change}" for change in changes])
    assert (ours - theirs).abs().max() <= 1e-6
    # another word gives another vector, so that the comparison says something
    other = always(model, torch.randn(model.backbone.word_width)).encode([{"image": picture(60, 40), "text": "x"}])
    assert (other - theirs[1]).norm() > 0.01


def test_an_item_of_one_part_keeps_its_vector(model, picture):
    alone = ["a text", picture(56, 56)]

    plain = Embedder(EmbedderSettings(DualEncoder(scratch=Scratch("clip")), pooler=Sum())).eval()

    assert torch.equal(model.encode(alone), plain.encode(alone))


def test_both_the_picture_and_the_text_say_what_the_query_is(model, picture):
    query = model.encode({"image": picture(56, 56, 1), "text": "is red"})
    others = [
        {"image": picture(56, 56, 2), "text": "is red"},
        {"image": picture(56, 56, 1), "text": "is blue"},
        "a photo of $ that is red",
    ]

    assert ((model.encode(others) - query).norm(dim=-1) > 1e-3).all()


@pytest.mark.parametrize("frames", ["normalised_mean", "mean"])
def test_the_network_sees_the_mean_of_the_vectors_as_the_tower_gives_them(frames, picture):
    model = composed(frames=frames, normalize=False)
    pictures = [picture(56, 56, 1), picture(8, 8, 2).resize((56, 56))]
    seen = []
    model.pooler.network.register_forward_pre_hook(lambda _, given: seen.append(given[0]))

    model.encode([{"image": pictures[0], "text": "x"}], batch_tokens=1)
    model.encode([{"image": pictures, "text": "x"}], batch_tokens=1)

    vectors = model.encode(pictures)
    mean = vectors.mean(0)
    if frames == "normalised_mean":
        mean = F.normalize(vectors, dim=-1).mean(0) * vectors.norm(dim=-1).mean()
    assert (vectors.norm(dim=-1) - 1).abs().min() > 0.1
    assert torch.allclose(seen[0][0], vectors[0], atol=1e-5)
    assert torch.allclose(seen[1][0], mean, atol=1e-5)


def test_a_network_that_was_given_unit_length_is_given_it_of_pictures_too(picture):
    plain, unit = composed(normalize=False), composed(Phi(hidden=16, unit_input=True), normalize=False)
    unit.load_state_dict(plain.state_dict())
    item, alone = {"image": picture(56, 56, 1), "text": "x"}, picture(56, 56, 1)

    with torch.no_grad():
        word = plain.pooler.network(F.normalize(plain.encode([alone]), dim=-1))[0]

    assert (unit.encode(item) - plain.encode(item)).norm() > 1e-3
    assert torch.allclose(unit.encode(item), always(plain, word).encode(item), atol=1e-5)


def test_a_composed_row_does_not_depend_on_its_batch(model, items):
    alone = torch.cat([model.encode([item], batch_tokens=1) for item in items])

    for batch_tokens in (1, 60, 10**6):
        assert (model.encode(items, batch_tokens=batch_tokens) - alone).abs().max() <= 1e-6
        backwards = model.encode(items[::-1], batch_tokens=batch_tokens)
        assert (backwards.flip(0) - alone).abs().max() <= 1e-6


@pytest.mark.parametrize("composer", [Sum(), Phi(), Pic2Word(placeholder="$")], ids=lambda c: type(c).__name__)
def test_each_picture_passes_the_tower_once_and_each_query_is_one_text(composer, picture):
    queries = [{"image": picture(56, 56, i % 2), "text": text} for i, text in enumerate(["is red", "is so", "x", "y"])]

    with counting() as work:
        composed(composer).encode([*queries, picture(56, 56, 0), "text"])

    assert work["tower_forwards"] == 2
    assert work["language_rows"] == 5


def test_first_and_all_places_differ_where_the_text_has_the_placeholder_too(picture):
    first, every = composed(Phi(places="first")), composed(Phi(places="all"))
    every.load_state_dict(first.state_dict())
    plain, twice = ({"image": picture(56, 56), "text": text} for text in ("is red", "costs $ 5"))

    assert torch.equal(first.encode(plain), every.encode(plain))
    assert (first.encode(twice) - every.encode(twice)).norm() > 1e-3


def test_only_the_rows_named_are_changed_and_gradient_reaches_the_words(model):
    backbone = model.backbone
    sequence = backbone.texts(["a $ here", "a $ there", "no more $ of $"])
    words = torch.randn(2, backbone.word_width, requires_grad=True)

    filled = replaced(sequence, words, torch.tensor([2, 0]), model.pooler.placeholder, "all")

    changed = (filled.embeds != sequence.embeds).any(1)
    assert changed.sum() == 3
    assert torch.equal(filled.embeds[changed], words[[1, 0, 0]])
    filled.embeds[changed].sum().backward()
    assert words.grad.mean(1).tolist() == [2, 1]


def test_gradient_flows_from_composed_rows_to_the_network(items):
    model = composed(Phi(hidden=16, dropout=0)).train()
    model.backbone.model.requires_grad_(False)

    model(collate(rows_of(model, items)))[[0, 3]].sum().backward()

    assert all(p.grad.abs().sum() > 0 for p in model.pooler.parameters())
    assert all(p.grad is None for p in model.backbone.model.parameters())


def test_the_filler_of_a_batch_uses_the_network(model):
    seen = []
    handle = model.pooler.network.register_forward_hook(lambda *_: seen.append(1))
    preprocessor = model.backbone.preprocessor

    model(collate([preprocessor(preprocessor.filler(), "query")]))
    handle.remove()

    assert seen == [1]


def test_words_take_the_models_own_type_and_the_network_stays_exact(items):
    model = composed(dtype="bfloat16")
    exact = composed()
    exact.pooler.load_state_dict(model.pooler.state_dict())

    vectors = model.encode(items)

    assert model.backbone.text.table.weight.dtype == torch.bfloat16
    assert {p.dtype for p in model.pooler.parameters()} == {torch.float32}
    assert (F.cosine_similarity(vectors, exact.encode(items)) > 0.99).all()


def test_a_profile_without_the_placeholder_in_its_phrase_is_refused():
    message = (
        r"prompt\.phrases\.both: expected a phrase with '\$'.* got '\{text\}'; e\.g\. 'a photo of \$ that \{text\}'"
    )
    with pytest.raises(InputError, match=message):
        composed(phrase="{text}")


@pytest.mark.parametrize("text", ["word " * 100, "x" * 400])
def test_a_placeholder_that_the_context_cuts_off_is_refused_by_the_number_of_its_item(text, picture):
    model = composed(phrase="{text}, of $")
    good, bad = ({"image": picture(56, 56), "text": t} for t in ("is red", text))

    with pytest.raises(InputError, match=r"item 1: item\.text: expected pooler\.placeholder .* before \{text\} lest"):
        model.encode([good, bad])


def test_an_item_that_brings_its_words_brings_the_placeholder(model, picture):
    phrased = model.encode({"image": picture(56, 56), "text": "is red"})

    assert torch.equal(model.encode(Item((Image(picture(56, 56)), "a photo of $ that is red"))), phrased)
    with pytest.raises(InputError, match=r"item 0: item\.text: expected pooler\.placeholder"):
        model.encode(Item((Image(picture(56, 56)), "a photo that is red")))


def test_a_batch_made_elsewhere_is_refused_as_well(model, picture):
    rows = [
        model.backbone.preprocessor(Item((Image(picture(56, 56)), text)), "query") for text in ("of $", "of", "of it")
    ]

    with pytest.raises(InputError, match="got 2 of 3 without it"):
        model(collate(rows))


@pytest.mark.parametrize(
    ("architecture", "word", "got"),
    [
        ("clip", "two words", "'two words', 2 tokens"),
        ("clip", " ", "' ', no tokens"),
        ("siglip", "$", r"'\$', no tokens"),
        ("siglip", "zq", "'zq', 3 tokens"),
    ],
)
def test_a_placeholder_that_is_not_one_token_is_refused(architecture, word, got):
    settings = EmbedderSettings(
        DualEncoder(scratch=Scratch(architecture)), RawPrompt(phrases=Phrases(both=f"{word} {{text}}")), Phi(word)
    )

    with pytest.raises(InputError, match=f"expected a word that is one token of the tokenizer, got {got}"):
        Embedder(settings, texts=WORDS)


def test_the_token_of_all_unknown_words_is_no_placeholder():
    words = Tokenizer(WordLevel({"[UNK]": 0, "a": 1, "dog": 2}, unk_token="[UNK]"))
    words.pre_tokenizer = Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]")
    reader = SimpleNamespace(tokenizer=SimpleNamespace(tokenizer=fast), read=lambda text: fast(text).input_ids)

    assert single_token(reader, "dog") == 2
    with pytest.raises(InputError, match="got 'cat', which is unknown to it"):
        single_token(reader, "cat")


@pytest.mark.parametrize(
    ("composer", "values", "message"),
    [
        (Phi, {"hidden": 0}, r"pooler\.hidden: expected at least 1, got 0"),
        (Phi, {"dropout": 1.0}, r"pooler\.dropout: expected from 0 to below 1, got 1\.0"),
        (Pic2Word, {"dropout": -0.1}, r"pooler\.dropout: expected from 0 to below 1, got -0\.1"),
    ],
)
def test_settings_that_make_no_network_are_refused(composer, values, message):
    with pytest.raises(InputError, match=message):
        composer(**values)


def phi_file(path):
    torch.save({"epoch": 3, "Phi": load_file(MAPPING / "searle_phi.safetensors")}, path)


def bare_file(path):
    torch.save(load_file(MAPPING / "lincir_phi.safetensors"), path)


def parallel_file(path):
    weights = load_file(MAPPING / "lincir_phi.safetensors")
    torch.save({"Phi": {f"module.{name}": value.half() for name, value in weights.items()}}, path)


def pic2word_file(path):
    network = {f"module.{name}": value for name, value in load_file(MAPPING / "im2text.safetensors").items()}
    optimizer = {"state": {0: {"step": 1}}, "param_groups": [{"lr": 1e-4}]}
    clip = {"module.logit_scale": torch.ones(())}
    torch.save(
        {"epoch": 30, "name": "run", "state_dict": clip, "state_dict_img2text": network, "optimizer": optimizer}, path
    )


RELEASED = {
    "searle": (phi_file, Phi(), "SEARLE_ViT-B32.pt", "searle_phi"),
    "pic2word": (pic2word_file, Pic2Word(placeholder="*", hidden=32), "epoch_30.pt", "im2text"),
    "parallel": (parallel_file, Phi(places="all"), "lincir.pt", "lincir_phi"),
    "bare": (bare_file, Phi(), "a.bin", "lincir_phi"),
}


@pytest.mark.parametrize("name", RELEASED)
def test_a_released_file_loads_and_is_saved_as_our_own(name, tmp_path, items):
    write, composer, file, weights = RELEASED[name]
    write(tmp_path / file)
    directory = published(tmp_path / "clip")

    model = composed(composer, "a photo of $ * {text}", str(tmp_path / file), path=directory)
    model.save(tmp_path / "saved")
    again = Embedder.from_pretrained(tmp_path / "saved", device="cpu")

    theirs = load_file(MAPPING / f"{weights}.safetensors")
    tolerance = {"atol": 1e-3} if name == "parallel" else {"atol": 0, "rtol": 0}
    for key, value in model.pooler.network.state_dict().items():
        assert torch.allclose(value, theirs[key], **tolerance)
    assert set(load_file(tmp_path / "saved/pooler.safetensors")) == {f"network.{key}" for key in theirs}
    assert torch.equal(again.encode(items), model.encode(items))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("layers.3.bias"), r"1 missing: network\.layers\.3\.bias"),
        (lambda w: w.update({"layers.9.bias": torch.ones(1)}), r"1 unexpected: network\.layers\.9\.bias"),
        (lambda w: w.update({"layers.6.bias": torch.ones(7)}), r"1 of another shape: network\.layers\.6\.bias"),
        (lambda w: w.update({"step": 3}), r"expected the pooler's weights by name, got Phi"),
    ],
)
def test_a_released_file_that_does_not_fit_is_refused_by_the_names_of_its_weights(change, message, tmp_path):
    weights = load_file(MAPPING / "searle_phi.safetensors")
    change(weights)
    torch.save({"Phi": weights}, tmp_path / "phi.pt")

    with pytest.raises(InputError, match=message):
        composed(Phi(), weights=str(tmp_path / "phi.pt"), path=published(tmp_path / "clip"))


def test_a_network_of_the_other_method_is_refused(tmp_path):
    pic2word_file(tmp_path / "epoch.pt")

    with pytest.raises(InputError, match=r"network\.fc_out\.bias"):
        composed(Phi(hidden=32), weights=str(tmp_path / "epoch.pt"), path=published(tmp_path / "clip"))


def test_a_file_that_would_run_code_is_refused(tmp_path):
    torch.save({"Phi": torch.nn.Linear(2, 2)}, tmp_path / "phi.pt")

    with pytest.raises(InputError, match="objects besides tensors and plain values"):
        composed(Phi(), weights=str(tmp_path / "phi.pt"), path=published(tmp_path / "clip"))


@pytest.mark.parametrize("profile", ["searle", "lincir"])
def test_a_profile_opens_a_released_clip_with_its_released_network(profile, tmp_path, items):
    directory = published(tmp_path / "clip")
    phi_file(tmp_path / "phi.pt")

    model = Embedder.from_pretrained(directory, profile=profile, pooler_weights=tmp_path / "phi.pt", device="cpu")

    transform = "targetpad" if profile == "searle" else "standard"
    by_hand = composed(
        Phi(places="all" if profile == "lincir" else "first"), weights=str(tmp_path / "phi.pt"), path=directory,
        transform=transform,
    )  # fmt: skip
    assert torch.equal(model.encode(items), by_hand.encode(items))


def test_pic2words_profile_has_its_placeholder_and_asks_for_its_own_width(tmp_path):
    pic2word_file(tmp_path / "epoch_30.pt")

    # the small network of the file has 32 hidden numbers, the published one 512
    with pytest.raises(InputError, match="5 of another shape"):
        Embedder.from_pretrained(
            published(tmp_path / "clip"), profile="pic2word", pooler_weights=tmp_path / "epoch_30.pt", device="cpu"
        )


@pytest.mark.parametrize("name", ["ViT-B-32", "ViT-L-14"])
@pytest.mark.parametrize("profile", ["searle", "lincir", "pic2word"])
def test_openais_clip_by_a_name_without_its_activation_is_refused(profile, name):
    message = f"trained with, got {name} with GELU; name {name}-quickgelu:openai"
    with pytest.raises(InputError, match=message):
        Embedder.from_pretrained(f"{name}:openai", profile=profile, pooler_weights="phi.pt", device="cpu")


def test_a_profile_without_its_network_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"expected the pooler's trained weights.* name its file in pooler_weights"):
        Embedder.from_pretrained(published(tmp_path / "clip"), profile="searle", device="cpu")


def test_a_file_of_weights_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"phi\.pt: expected the pooler's weights, got no such file"):
        Embedder.from_pretrained(
            published(tmp_path / "clip"), profile="searle", pooler_weights=tmp_path / "phi.pt", device="cpu"
        )


def test_a_broken_file_of_weights_is_refused(tmp_path):
    (tmp_path / "phi.safetensors").write_bytes(b"<!doctype html>")

    with pytest.raises(InputError, match=r"phi\.safetensors: expected whole safetensors files"):
        composed(Phi(), weights=str(tmp_path / "phi.safetensors"), path=published(tmp_path / "clip"))


def test_a_saved_network_may_be_exchanged_for_another(tmp_path, items):
    directory = published(tmp_path / "clip")
    phi_file(tmp_path / "phi.pt")
    model = composed(Phi(), weights=str(tmp_path / "phi.pt"), path=directory)
    model.save(tmp_path / "saved")
    save_file(load_file(MAPPING / "lincir_phi.safetensors"), tmp_path / "other.safetensors")

    other = Embedder.from_pretrained(tmp_path / "saved", pooler_weights=tmp_path / "other.safetensors", device="cpu")

    assert not torch.allclose(other.encode(items[:1]), model.encode(items[:1]), atol=1e-3)
