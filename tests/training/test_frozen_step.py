"""What a step of an adapter behind a frozen tower computes, and what it does not compute twice."""

import pytest
import torch

from mmembed import Item, Pair
from mmembed.counters import counting
from mmembed.losses.settings import Contrastive
from mmembed.models.adapters import add_lora
from mmembed.models.settings import Lora
from mmembed.training.batches import PairPreparer
from mmembed.training.module import EmbedderModule
from mmembed.training.settings import Chunks, Stage
from tests.cases import draw

PAIRS = 64


@pytest.fixture
def module(fresh_embedder):
    embedder = fresh_embedder().train()
    add_lora(embedder.backbone.model, Lora(r=2, dropout=0.0))
    embedder.trainable = embedder._trainable()
    stage = Stage({}, 1, objective=Contrastive(temperature=0.1), freeze=("model.visual",))
    return EmbedderModule(embedder, stage, seed=0)


def step(module, pairs, **chunks):
    prepare = PairPreparer(module.embedder.backbone.preprocessor, Chunks(**chunks))
    batch = prepare(0, pairs)
    module.zero_grad()
    module.stage = Stage(
        {}, 1, objective=module.stage.objective, chunks=prepare.chunks, freeze=module.stage.freeze
    )  # fmt: skip
    with counting() as work:
        module.gradients(batch)
    return work


def pairs_of(queries):
    pictures = [Item.of({"image": draw(28, 28, seed)}) for seed in range(PAIRS)]
    return [
        Pair(query, (target,), query_id=str(i)) for i, (query, target) in enumerate(zip(queries, pictures, strict=True))
    ]


def test_each_medium_passes_the_tower_and_each_row_the_language_model_once(module):
    pairs = pairs_of([Item.of({"image": draw(28, 28, 100 + seed)}) for seed in range(PAIRS)])

    kept = step(module, pairs, rows=8)
    gradient = {n: p.grad.clone() for n, p in module.named_parameters() if p.grad is not None}
    recomputed = step(module, pairs, rows=8, keep_mb=0)

    assert (kept["tower_forwards"], kept["language_rows"]) == (2 * PAIRS, 2 * PAIRS)
    assert (recomputed["tower_forwards"], recomputed["language_rows"]) == (2 * PAIRS, 4 * PAIRS)
    assert kept["padded_tokens"] == kept["language_tokens"]
    assert all(torch.allclose(p.grad, gradient[n], atol=1e-6) for n, p in module.named_parameters() if n in gradient)


def test_sorted_chunks_pad_less(module):
    words = ["a", "red", "circle", "the", "same", "but", "blue", "describe", "the", "clip"]
    pairs = pairs_of([Item.of(" ".join(words[: 1 + i % 10]) + f" {i}") for i in range(PAIRS)])

    in_order, by_length = (step(module, pairs, rows=8, sort=sort) for sort in (False, True))

    assert in_order["language_tokens"] == by_length["language_tokens"]
    padding = [work["padded_tokens"] - work["language_tokens"] for work in (in_order, by_length)]
    assert padding[1] < padding[0] / 4
