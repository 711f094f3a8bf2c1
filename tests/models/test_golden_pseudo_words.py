"""Mapping networks and pseudo-words against what the published codes made of the same weights and texts."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from mmembed import Embedder
from mmembed.models.pseudo_words import replaced
from mmembed.models.saved import load_part
from mmembed.models.settings import DualEncoder, EmbedderSettings, Phi, Phrases, Pic2Word, RawPrompt
from tests.models.backbones.dual_encoder.checkpoints import MAPPING, published

GOLDEN = load_file(MAPPING / "golden.safetensors")
INPUTS = json.loads((MAPPING / "inputs.json").read_text())
ARRAYS = {name: torch.tensor(array) for name, array in np.load(MAPPING / "inputs.npz").items()}
# published parameter counts, by width of the image vectors and of the words
COUNTS = {512: 6_296_064, 768: 14_162_688, 1024: 25_175_040, 1280: 39_333_120}
NETWORKS = {
    "searle_phi": Phi(), "lincir_phi": Phi(), "im2text": Pic2Word(hidden=32), "lincir_pic2word": Pic2Word(hidden=32),
}  # fmt: skip


class Widths:
    """What a composer is built for: the widths of a backbone."""

    preprocessor = type("Preprocessor", (), {"prompt": RawPrompt(phrases=Phrases(both="$ * {text}"))})

    def __init__(self, width):
        self.width = self.word_width = width

    def token_id(self, word):
        return 0


@pytest.fixture(scope="module")
def open_composer(tmp_path_factory):
    """Open the published small CLIP with a composer."""
    directory = published(tmp_path_factory.mktemp("golden") / "checkpoint")

    def open_it(composer, phrase="a photo of $ that {text}", weights=None):
        prompt = RawPrompt(phrases=Phrases(both=phrase))
        backbone = DualEncoder(path=str(directory))
        return Embedder(EmbedderSettings(backbone, prompt, composer, pooler_weights=weights, normalize=False)).eval()

    return open_it


@torch.no_grad()
def filled(backbone, texts, words, token, places):
    sequence = replaced(backbone.texts(texts), words, torch.arange(len(words)), token, places)
    return backbone.words(sequence)[0]


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_makes_the_published_pseudo_words(name, open_composer):
    model = open_composer(NETWORKS[name], "a photo of $ or * that {text}", str(MAPPING / f"{name}.safetensors"))

    with torch.no_grad():
        ours = model.pooler.words(ARRAYS["feats"], model.backbone)

    assert (ours - GOLDEN[f"{name}.out"]).abs().max() <= 1e-5


def test_a_picture_becomes_the_published_pseudo_word(open_composer):
    model = open_composer(Phi(), weights=str(MAPPING / "searle_phi.safetensors"))

    with torch.no_grad():
        vectors = model.backbone.model.encode_image(ARRAYS["images"])
        words = model.pooler.words(vectors, model.backbone)

    assert (vectors - GOLDEN["image_features"]).abs().max() <= 1e-6
    assert (words - GOLDEN["searle.chain_tokens"]).abs().max() <= 1e-5


@pytest.mark.parametrize(
    ("texts", "places", "expected"),
    [
        ("searle", "first", "searle.text"),
        ("lincir", "all", "lincir.text"),
        ("searle", "all", "lincir.on_searle_texts"),
        ("long77", "first", "searle.long77"),
    ],
)
def test_texts_with_pseudo_words_equal_the_published_ones(texts, places, expected, open_composer):
    backbone = open_composer(Phi()).backbone
    said = INPUTS["texts"][texts]

    ours = filled(backbone, said, ARRAYS["pseudo"][: len(said)], 259, places)

    assert (ours - GOLDEN[expected]).abs().max() <= 1e-5


def test_first_and_all_differ_where_a_text_has_two_placeholders_and_nowhere_else(open_composer):
    backbone = open_composer(Phi()).backbone
    said, words = INPUTS["texts"]["searle"], ARRAYS["pseudo"][:5]

    apart = (filled(backbone, said, words, 259, "first") - filled(backbone, said, words, 259, "all")).abs().amax(1)

    assert (apart > 0.1).tolist() == [False, False, False, True, False]
    assert apart[[0, 1, 2, 4]].max() <= 1e-6


def test_a_placeholder_filled_with_its_own_vector_is_the_text_as_it_is(open_composer):
    backbone = open_composer(Phi()).backbone
    said = INPUTS["texts"]["searle"]
    own = backbone.text.table.weight[259].detach().expand(len(said), -1)

    ours = filled(backbone, said, own, 259, "first")

    assert (ours - GOLDEN["encode_text.searle"]).abs().max() <= 1e-6
    assert (ours[:3] - GOLDEN["searle.identity_token"]).abs().max() <= 1e-6


def test_pic2words_placeholder_is_an_asterisk_and_only_the_first_is_filled(open_composer):
    model = open_composer(Pic2Word(hidden=32), "a photo of * , {text}")
    said, words = INPUTS["texts"]["p2w"], ARRAYS["pseudo"][:4]

    ours = filled(model.backbone, said, words, model.pooler.placeholder, model.pooler.places)

    # the tower itself, from the embeddings that its table would have given
    clip, ids = model.backbone.model, ARRAYS["ids_p2w"].long()
    embeds = clip.token_embedding(ids).detach()
    for row, (first, *_) in enumerate(INPUTS["star_positions"]["p2w"]):
        embeds[row, first] = words[row]
    handle = clip.token_embedding.register_forward_hook(lambda *_: embeds)
    with torch.no_grad():
        theirs = clip.encode_text(ids)
    handle.remove()
    assert model.pooler.placeholder == INPUTS["placeholder"]["pic2word"]
    assert (ours - theirs).abs().max() <= 1e-6


def test_texts_are_cut_into_the_published_tokens(open_composer):
    backbone = open_composer(Phi()).backbone

    for name, texts in INPUTS["texts"].items():
        for text, ids in zip(texts, ARRAYS[f"ids_{name}"], strict=True):
            read = backbone.preprocessor.read(text)
            assert read == ids[: len(read)].tolist()
            assert not ids[len(read) :].any()


@pytest.mark.parametrize("width", COUNTS)
def test_networks_have_the_published_number_of_weights(width):
    with torch.device("meta"):
        phi, pic2word = Phi().build_for(Widths(width)), Pic2Word().build_for(Widths(width))

    assert sum(p.numel() for p in phi.parameters()) == COUNTS[width]
    if width == 768:
        assert sum(p.numel() for p in pic2word.parameters()) == 1_050_368


def test_the_composer_as_a_whole_is_picture_to_word_to_phrase(open_composer, picture):
    model = open_composer(Phi(), weights=str(MAPPING / "searle_phi.safetensors"))
    pictures = [picture(40, 60, seed) for seed in range(5)]
    changes = [text.removeprefix("a photo of $ that ") for text in INPUTS["texts"]["searle"]]

    ours = model.encode([{"image": p, "text": change} for p, change in zip(pictures, changes, strict=True)])

    with torch.no_grad():
        words = model.pooler.network(model.encode(pictures))
    theirs = filled(model.backbone, INPUTS["texts"]["searle"], words, 259, "first")
    assert (ours - theirs).abs().max() <= 1e-5
    assert (F.normalize(ours, dim=-1) - F.normalize(model.encode(changes), dim=-1)).norm(dim=-1).min() > 0.05


def test_weights_in_a_published_file_are_those_of_the_network_and_no_others(open_composer):
    pooler = open_composer(Phi()).pooler

    load_part(pooler, str(MAPPING / "lincir_phi.safetensors"), "pooler")

    theirs = load_file(MAPPING / "lincir_phi.safetensors")
    assert {f"network.{name}" for name in theirs} == set(pooler.state_dict())
    assert all(torch.equal(pooler.state_dict()[f"network.{name}"], value) for name, value in theirs.items())
