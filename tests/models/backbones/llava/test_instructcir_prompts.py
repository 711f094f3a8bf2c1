"""The composed query, the gallery and the caption under the profiles, written and embedded as published."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mmembed import Image, Item
from mmembed.evaluation.benchmark import read_benchmark
from mmembed.evaluation.written import written
from mmembed.models.profiles import load_profile
from mmembed.models.prompts import render
from tests.models.backbones.llava.test_instructcir import CASES, PICTURES, ROOT, TOLERANCE

BENCHMARKS = Path(__file__).parents[4] / "eval/benchmarks"
CHANGES = list(zip(CASES["query_batch"]["images"], CASES["query_batch"]["captions"], strict=True))


@pytest.fixture(scope="module")
def published():
    return load_file(ROOT / "golden.safetensors")


def composed(picture, change):
    """A picture and a change, as people write them; an empty change stays a change."""
    if not change:
        return Item((Image(PICTURES / picture), ""), verbatim=False)
    return Item.of({"image": PICTURES / picture, "text": change})


def turns(messages, opened):
    """Phi-3.5's turns around one string, without the beginning of text."""
    (message,) = messages
    return f"<|user|>\n{message['content']}<|end|>\n<|assistant|>\n" if opened else message["content"]


def published_string(item, profile="instructcir"):
    prompt = load_profile(profile).embedder.prompt
    segments = render(item, prompt, ["<image>"] * len(item.media), turns, placeholders=("<image>",))
    return "".join(segment.text for segment in segments)


@pytest.mark.parametrize("row", range(len(CHANGES)))
def test_a_picture_and_a_change_are_the_published_string(row):
    assert published_string(composed(*CHANGES[row])) == CASES["query_batch"]["prompt_after_slice"][row]


def test_a_picture_alone_is_the_published_string_of_the_gallery():
    assert published_string(Item.of({"image": "a.png"})) == CASES["gallery"]["prompt_after_slice"]


@pytest.mark.parametrize("profile", ["instructcir", "e5_v"])
def test_the_composed_query_is_spelt_as_it_was_trained(profile):
    query = Item.of({"image": "a.png", "text": "make it red"})

    wanted = '<image>Modify this image with "make it red", desribe modified image in one word:'
    assert f"\n{wanted}<" in published_string(query, profile)


def test_a_caption_is_asked_for_as_by_e5_v_on_phi_3():
    assert published_string(Item.of("a red dress")) == (
        "<|user|>\na red dress\nSummary above sentence in one word:<|end|>\n<|assistant|>\n"
    )


@pytest.mark.parametrize("name", ["cirr", "circo"])
def test_a_benchmark_without_wording_is_asked_as_its_published_wording_asks(name):
    own = read_benchmark(BENCHMARKS / f"{name}.yaml")
    query = Item((Image("a.png"), "make it red", "is a dress")[: 2 if name == "cirr" else 3], verbatim=False)

    for side, item in (("query", query), ("target", Item.of({"image": "a.png"}))):
        bare, worded = (
            [published_string(way) for way in written(bench.tasks["val"], side, item)]
            for bench in (own, own.worded("e5_v"))
        )
        assert bare == worded
        assert len(bare) == 1


def test_pictures_and_changes_embed_as_published(open_instructcir, published):
    embedder = open_instructcir()
    queries = [composed(*change) for change in CHANGES]

    batch = embedder.encode(queries, batch_tokens=10**6)
    singles = torch.cat([embedder.encode([query]) for query in queries])

    assert (batch - published["query_batch.emb"]).abs().max() <= TOLERANCE
    assert (singles - published["query_singles.emb"]).abs().max() <= TOLERANCE


def test_a_wrong_spelling_is_another_embedding(open_instructcir, published):
    words = 'Modify this image with "make it red", describe modified image in one word:'
    spelt = Item((Image(PICTURES / CHANGES[0][0]), words))

    assert (open_instructcir().encode([spelt]) - published["query_batch.emb"][:1]).abs().max() > 0.01
