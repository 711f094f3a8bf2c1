"""Every family trains by the same path: cached gradients over chunks equal one backward pass over the whole batch."""

import pytest
import torch

from mmembed import Pair
from mmembed.counters import counting
from mmembed.losses.settings import Contrastive
from mmembed.training.batches import PairPreparer
from mmembed.training.module import EmbedderModule
from mmembed.training.settings import Chunks, Optim, Stage
from tests.families import FAMILIES, READS_PICTURES, family_embedder


def pairs_of(name):
    items = FAMILIES[name].items
    return [
        Pair(query, (target,), query_id=str(i), source="s")
        for i, (query, target) in enumerate(zip(items, [*items[1:], items[0]], strict=True))
    ]


def gradients(embedder, pairs, chunks):
    stage = Stage({}, steps=1, chunks=chunks, objective=Contrastive(temperature=0.1), optim=Optim(lr=1e-2))
    module = EmbedderModule(embedder.train(), stage, seed=0)
    embedder.zero_grad()
    loss, _ = module.gradients(PairPreparer(embedder.backbone.preprocessor, chunks)(0, pairs))
    return loss.value.item(), {n: p.grad.clone() for n, p in embedder.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_batch_has_the_same_loss_and_gradient_however_it_is_cut(name):
    embedder, pairs = family_embedder(name), pairs_of(name)
    whole, expected = gradients(embedder, pairs, Chunks())

    for chunks in (Chunks(rows=2, keep_mb=0), Chunks(tokens=60, keep_mb=0), Chunks(rows=3, keep_mb=4096)):
        cut, ours = gradients(embedder, pairs, chunks)
        assert cut == pytest.approx(whole, rel=1e-5)
        assert ours.keys() == expected.keys()
        largest = max(g.abs().max() for g in expected.values())
        assert max((ours[n] - g).abs().max() for n, g in expected.items()) < 1e-4 * largest


@pytest.mark.parametrize("name", READS_PICTURES)
def test_a_frozen_tower_runs_once_for_each_picture_of_a_step(name):
    embedder, pairs = family_embedder(name), pairs_of(name)
    embedder.backbone.tower.requires_grad_(False)
    embedder.trainable = frozenset(n for n, p in embedder.named_parameters() if p.requires_grad)

    with counting() as work:
        _, ours = gradients(embedder, pairs, Chunks(rows=2, keep_mb=0))

    media = {medium.fingerprint() for pair in pairs for medium in (*pair.query.media, *pair.positives[0].media)}
    assert work["tower_forwards"] == len(media)
    assert ours.keys() == embedder.trainable
    assert all(torch.isfinite(g).all() for g in ours.values())
