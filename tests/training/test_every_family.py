"""Every family trains by the same path: cached gradients over chunks equal one backward pass over the whole batch."""

from dataclasses import replace

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh

from mmembed import Embedder, Image, Item, Pair, Region
from mmembed.counters import counting
from mmembed.errors import InputError
from mmembed.losses.settings import Contrastive
from mmembed.models.compiled import repeated_layers
from mmembed.models.sequence import collate
from mmembed.models.settings.regions import MaskChannel, MaskPool, RoiReplay, Sam2Regions, Sam2Scratch
from mmembed.training.batches import PairPreparer
from mmembed.training.module import EmbedderModule
from mmembed.training.settings import Chunks, Optim, Stage
from mmembed.training.sharding import shard, whole_tensor
from tests.cases import WORDS, draw
from tests.families import FAMILIES, READS_PICTURES, family_embedder, family_settings


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


@pytest.fixture
def mesh(tmp_path):
    """One process on its own, which FSDP2 takes for a group."""
    dist.init_process_group("gloo", store=dist.FileStore(str(tmp_path / "store"), 1), rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


@pytest.mark.parametrize("name", FAMILIES)
def test_sharded_weights_embed_and_train_as_whole_ones(name, mesh):
    batch = PairPreparer(family_embedder(name).backbone.preprocessor, Chunks(), filler=True)(0, pairs_of(name))
    results = []
    for sharded in (False, True):
        embedder = family_embedder(name, **({"longrope_by": "batch"} if name == "phi3_v" else {})).train()
        if sharded:
            shard(embedder, mesh)
        vectors = torch.cat([embedder(chunk) for chunk in batch.chunks])
        vectors[:, :9].sum().backward()
        gradients = {n: whole_tensor(p.grad) for n, p in embedder.named_parameters() if p.grad is not None}
        results.append((vectors.detach(), gradients))

    (ours, our_gradients), (theirs, their_gradients) = results
    assert torch.allclose(ours, theirs, atol=1e-6, rtol=0)
    assert our_gradients.keys() == their_gradients.keys()
    assert all(torch.allclose(their_gradients[n], g, rtol=1e-4, atol=1e-5) for n, g in our_gradients.items())


@pytest.mark.parametrize("regions", [RoiReplay(), MaskPool(), MaskChannel(), Sam2Regions(scratch=Sam2Scratch(128))])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_region_encoder_is_sharded_beside_a_backbone_of_another_type(regions, dtype, mesh):
    item = Item((Image(draw(84, 56), (Region(box=(5, 5, 60, 40)),)), "which one?"))
    results = []
    for sharded in (False, True):
        torch.manual_seed(0)
        embedder = Embedder(replace(family_settings("qwen2_vl", dtype=dtype), regions=regions), texts=WORDS).train()
        batch = collate(embedder.prepare([item], "query"))
        if sharded:
            shard(embedder, mesh)
        vectors = embedder(batch)
        vectors[:, :9].sum().backward()
        gradients = {n: whole_tensor(p.grad) for n, p in embedder.regions.named_parameters() if p.requires_grad}
        results.append((vectors.detach(), gradients))

    (ours, our_gradients), (theirs, their_gradients) = results
    assert torch.equal(ours, theirs)
    assert our_gradients.keys() == their_gradients.keys()
    assert all(torch.equal(their_gradients[n], g) for n, g in our_gradients.items())
    assert any(g.any() for g in our_gradients.values())


@pytest.mark.parametrize("name", FAMILIES)
def test_a_filler_runs_every_part_that_trains(name):
    embedder = family_embedder(name).train()
    batch = PairPreparer(embedder.backbone.preprocessor, Chunks(), filler=True)(0, pairs_of(name)[:1])

    embedder(batch.filler).sum().backward()

    layers = {id(p) for layer in repeated_layers(embedder.backbone) for p in layer.parameters() if p.requires_grad}
    assert layers == {id(p) for p in embedder.parameters() if p.grad is not None and id(p) in layers}


def test_rows_that_run_apart_are_refused_where_ranks_must_keep_in_step(mesh):
    message = r"strategy: fsdp2: expected max_length of at most \d+, or longrope_by: batch, got None"

    with pytest.raises(InputError, match=message):
        shard(family_embedder("phi3_v"), mesh)
    shard(family_embedder("phi3_v", max_length=256), mesh)
