"""Features of a tower met again: in memory within a bound, on disk, and in which order they are looked for."""

import pytest
import torch

from mmembed import Image, Item
from mmembed.counters import counting
from mmembed.models import embedder as embedder_module
from mmembed.models.feature_store import FeatureStore
from mmembed.models.features import SharedFeatures
from mmembed.models.identity import tower_identity
from mmembed.models.sequence import collate
from mmembed.models.settings import Speed
from mmembed.models.settings.regions import MaskChannel
from tests.cases import draw, small_embedder
from tests.families import READS_PICTURES
from tests.speeds import at_speed

PICTURES = [draw(56, 56 + 28 * i, i) for i in range(4)]


def batch_of(embedder, pictures=PICTURES):
    return collate(embedder.prepare([Item((Image(picture), "what?")) for picture in pictures], "query"))


def store_of(embedder, folder, max_bytes=1 << 30):
    return FeatureStore(folder, tower_identity(embedder), max_bytes=max_bytes)


def work_of(shared, batch):
    with counting() as work:
        features = shared.of(batch)
    return features, work["tower_forwards"], work["feature_hits"]


def same(ours, theirs):
    parts = [(ours.maps, theirs.maps), *zip(ours.layers, theirs.layers, strict=True)]
    parts += zip(ours.taps, theirs.taps, strict=True)
    return all(torch.equal(a, b) for one, other in parts for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("name", READS_PICTURES)
def test_what_is_on_disk_is_what_the_tower_gave_and_passes_it_no_more(name, embedder_of, tmp_path):
    embedder = embedder_of(name)
    batch = batch_of(embedder)
    # torch's own attention layers take another way with a gradient
    with torch.no_grad():
        computed = embedder.vision(batch)

    first, forwards, hits = work_of(SharedFeatures(embedder.vision, store=store_of(embedder, tmp_path)), batch)
    assert (forwards, hits) == (4, 0)
    again, forwards, hits = work_of(SharedFeatures(embedder.vision, store=store_of(embedder, tmp_path)), batch)
    assert (forwards, hits) == (0, 4)

    assert same(first, computed)
    assert same(again, first)


def test_only_what_the_disk_has_not_passes_the_tower(embedder_of, tmp_path):
    embedder = embedder_of("qwen3_vl")
    shared = [SharedFeatures(embedder.vision, store=store_of(embedder, tmp_path)) for _ in range(2)]
    work_of(shared[0], batch_of(embedder, PICTURES[:1]))

    mixed, forwards, hits = work_of(shared[1], batch_of(embedder, PICTURES[:3]))

    assert (forwards, hits) == (2, 1)
    expected = embedder.vision(batch_of(embedder, PICTURES[:3]))
    assert len(mixed.layers) == len(expected.layers) == 2
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(mixed.maps, expected.maps, strict=True))
    # what is known in memory is not read again
    assert work_of(shared[1], batch_of(embedder, PICTURES[:3]))[1:] == (0, 0)


def test_no_features_of_words_alone_are_looked_for(embedder_of, tmp_path):
    embedder = embedder_of("qwen2_vl")
    store = store_of(embedder, tmp_path)
    words = collate(embedder.prepare([Item.of("a red circle")], "query"))

    features, forwards, hits = work_of(SharedFeatures(embedder.vision, store=store), words)

    assert (features.maps, forwards, hits) == ([], 0, 0)
    assert not store.directory.exists()


def directory_of(embedder, folder):
    return store_of(embedder, folder).directory


def test_the_space_is_of_the_tower_and_what_it_is_given_and_of_nothing_else(tmp_path):
    embedder, twin = small_embedder("qwen2_vl"), small_embedder("qwen2_vl")
    ours = directory_of(embedder, tmp_path)
    with torch.no_grad():
        next(twin.backbone.model.language_model.parameters()).add_(1)
    assert directory_of(twin, tmp_path) == ours

    with torch.no_grad():
        next(twin.backbone.tower.parameters()).add_(1)
    others = [
        directory_of(twin, tmp_path),
        directory_of(small_embedder("qwen2_vl", max_pixels=3136), tmp_path),
        directory_of(small_embedder("qwen2_vl", regions=MaskChannel()), tmp_path),
        directory_of(small_embedder("qwen2_vl").bfloat16(), tmp_path),
    ]
    with at_speed(embedder, Speed(patch_products=False)):
        others.append(directory_of(embedder, tmp_path))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        others.append(directory_of(embedder, tmp_path))
    assert len({ours, *others}) == 1 + len(others)


def test_weights_that_mark_patches_are_of_the_space(tmp_path):
    embedder = small_embedder("qwen2_vl", regions=MaskChannel())
    before = directory_of(embedder, tmp_path)

    torch.nn.init.ones_(embedder.regions.channel.weight)

    assert directory_of(embedder, tmp_path) != before


def test_a_bound_in_memory_keeps_what_was_used_last_and_the_bytes_of_that_alone(embedder_of):
    embedder = embedder_of("qwen2_vl")
    batches = [batch_of(embedder, [draw(56, 56, seed)]) for seed in range(3)]
    size = embedder.vision(batches[0]).maps[0].nbytes
    shared = SharedFeatures(embedder.vision, only=(), max_bytes=2 * size)

    forwards = [work_of(shared, batches[i])[1] for i in (0, 1, 0, 2, 0, 1)]

    assert forwards == [1, 1, 0, 1, 0, 1]
    both = SharedFeatures(embedder.vision, only=(), max_bytes=2 * size)
    both.of(batch_of(embedder))
    assert both.held <= 2 * size


def test_media_that_are_expected_stay_whatever_the_bound(embedder_of):
    embedder = embedder_of("qwen2_vl")
    batch = batch_of(embedder)
    shared = SharedFeatures(embedder.vision, only=())

    shared.expect(set(batch.media[:2]))
    assert [work_of(shared, batch)[1] for _ in range(2)] == [4, 2]
    shared.expect(())
    assert work_of(shared, batch)[1] == 4


def questions(times):
    """Each picture in turn is asked another question, so that a window has all of them, and the next again."""
    return [Item((Image(PICTURES[i % 4]), f"question {i} about it")) for i in range(4 * times)]


def test_pictures_asked_about_in_many_windows_pass_the_tower_once(scratch_embedder, monkeypatch):
    embedder = scratch_embedder("qwen2_vl")
    alone = torch.cat([embedder.encode([item]) for item in questions(6)])
    # a window of few rows
    monkeypatch.setattr(embedder_module, "WINDOW_CHUNKS", 1)

    with counting() as work:
        vectors = embedder.encode(questions(6), batch_tokens=64)
    assert work["tower_forwards"] == 4
    assert work["language_rows"] == 24
    assert torch.allclose(vectors, alone, atol=2e-6, rtol=0)

    monkeypatch.setattr(embedder_module, "SHARED_BYTES", 0)
    with counting() as unkept:
        embedder.encode(questions(6), batch_tokens=64)
    assert unkept["tower_forwards"] > 8
