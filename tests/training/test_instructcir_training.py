"""InstructCIR's second stage on its published architecture: three kinds of items, one loss, all gradients."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from mmembed import Embedder, Item, Pair
from mmembed.data.mixture import as_drawn
from mmembed.items import Negative
from mmembed.models.profiles import load_profile
from mmembed.models.sequence import collate
from mmembed.recipe import read_recipe
from mmembed.training.batches import PairPreparer
from mmembed.training.module import EmbedderModule
from mmembed.training.settings import Chunks
from tests.cases import GOLDEN

CHANGES = ("make it red", 'the same "dog" on the beach', "shorter", "fewer sleeves")
RECIPE = read_recipe(Path(__file__).parents[2] / "configs/instruct_cir.yaml")
STAGE = RECIPE.stages["changes"]
CUTS = {"whole": Chunks(), "two rows": Chunks(rows=2, keep_mb=0), "by tokens": Chunks(tokens=700, keep_mb=1)}


@pytest.fixture
def embedder():
    return Embedder.from_pretrained(GOLDEN / "cir/instructcir/ckpt", profile="instructcir", device="cpu").train()


@pytest.fixture
def rows(picture):
    return [
        Pair(
            Item.of({"image": picture(60 + i, 50, seed=i), "text": change}), (Item.of(f"after {change}"),),
            (Negative(Item.of(f"before {i}")),), query_id=str(i),
        )
        for i, change in enumerate(CHANGES)
    ]  # fmt: skip


def drawn(rows, stage):
    """The rows as each source with a weight has them."""
    sources = {name: source for name, source in stage.mixture.items() if source.weight}
    return [as_drawn(row, name, source) for name, source in sources.items() for row in rows]


def trained(embedder, pairs, stage, chunks):
    """The loss of a batch and the gradients of the weights, as training has them."""
    stage = replace(stage, chunks=chunks, freeze=())
    module = EmbedderModule(embedder, stage, seed=0)
    loss, _ = module.gradients(PairPreparer(embedder.backbone.preprocessor, chunks, list(stage.mixture))(0, pairs))
    return loss.value.item(), take_gradients(embedder)


def take_gradients(embedder):
    weights = dict(embedder.named_parameters())
    found = {name: weight.grad.clone() for name, weight in weights.items() if weight.grad is not None}
    embedder.zero_grad(set_to_none=True)
    return found


def term(embedder, queries, positives, negatives):
    """The published loss: cross-entropy over all positives and all negatives, embedded side by side."""
    z1, z2, z3 = (
        embedder(collate(embedder.prepare(items, side)))
        for items, side in ((queries, "query"), (positives, "target"), (negatives, "target"))
    )
    return F.cross_entropy(torch.cat([z1 @ z2.T, z1 @ z3.T], 1) / 0.05, torch.arange(len(z1)))


def branches(rows):
    return [row.query for row in rows], [row.positives[0] for row in rows], [row.negatives[0].item for row in rows]


def close(found, expected):
    """Gradients agree to 1e-5 of the largest, and their norms to 5e-5."""
    assert found.keys() == expected.keys()
    largest = max(gradient.abs().max().item() for gradient in expected.values())
    norm = max(gradient.norm().item() for gradient in expected.values())
    for name, gradient in expected.items():
        assert (found[name] - gradient).abs().max() <= 1e-5 * max(1, largest), name
        assert found[name].norm().item() == pytest.approx(gradient.norm().item(), rel=5e-5, abs=5e-8 * norm), name


@pytest.mark.parametrize("cut", CUTS)
def test_the_three_branches_have_the_published_loss_and_its_gradients(cut, embedder, rows):
    loss = term(embedder, *branches(rows))
    loss.backward()
    expected = take_gradients(embedder)

    value, gradients = trained(embedder, drawn(rows, STAGE), STAGE, CUTS[cut])

    assert value == pytest.approx(loss.item(), rel=1e-5)
    close(gradients, expected)
    assert max(gradient.abs().max().item() for name, gradient in gradients.items() if "vision_tower" in name) > 0


def test_with_the_mirrored_source_it_is_the_mean_of_the_two_published_terms(embedder, rows):
    mixture = {name: replace(source, weight=1) for name, source in STAGE.mixture.items()}
    stage = replace(STAGE, mixture=mixture)
    queries, after, before = branches(rows)
    alone = [Item(query.media) for query in queries]
    loss = (term(embedder, queries, after, before) + term(embedder, alone, before, after)) / 2
    loss.backward()
    expected = take_gradients(embedder)

    value, gradients = trained(embedder, drawn(rows, stage), stage, Chunks())

    assert value == pytest.approx(loss.item(), rel=1e-5)
    close(gradients, expected)


def test_the_recipe_writes_items_as_the_profile_does():
    profile = load_profile("instructcir").embedder

    ours = RECIPE.embedder
    assert (ours.prompt, ours.pooler, ours.normalize) == (profile.prompt, profile.pooler, profile.normalize)
    assert ours.backbone == replace(profile.backbone, path=ours.backbone.path, dtype=ours.backbone.dtype)
