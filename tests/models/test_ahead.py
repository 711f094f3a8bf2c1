"""Vectors, errors and counts do not depend on how many workers prepare the rows."""

import os
import signal
from multiprocessing import active_children

import pytest
import torch

from mmembed import Item
from mmembed.counters import counting
from mmembed.errors import InputError
from mmembed.models.ahead import MOST_WORKERS, rows_ahead, usual_workers
from mmembed.workers import LostWorkerError


@pytest.fixture(scope="module")
def embedder(scratch_embedder):
    return scratch_embedder("qwen2_vl")


@pytest.fixture(scope="module")
def items(mixed_items, picture):
    more = [Item.of({"image": picture(56, 56 + 28 * i), "text": f"picture {i}"}) for i in range(5)]
    return [*mixed_items, *more, Item.of("last of twelve")]


class Killed:
    """Prepares items until one asks to die."""

    def __init__(self, preprocess):
        self.preprocess = preprocess

    def __call__(self, item, side):
        if item.text == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        return self.preprocess(item, side)


def rows_of(embedder, items, workers):
    with rows_ahead(embedder.backbone.preprocessor, list(enumerate(items)), "query", workers) as rows:
        return list(rows)


def equal(one, other):
    tensors = [torch.equal(getattr(one, name), getattr(other, name)) for name in ("ids", "kinds", "positions")]
    media = [torch.equal(a.pixels, b.pixels) for a, b in zip(one.media, other.media, strict=True)]
    return all(tensors + media) and one.fingerprint == other.fingerprint and one.side == other.side


@pytest.mark.parametrize("workers", [1, 2])
def test_vectors_are_bit_by_bit_those_without_workers(embedder, items, workers):
    assert torch.equal(embedder.encode(items, workers=workers), embedder.encode(items))


def test_rows_come_in_order_and_out_of_shared_memory(embedder, items):
    alone, ahead = (rows_of(embedder, items, workers) for workers in (0, 2))

    assert len(ahead) == len(items)
    assert all(equal(one, other) for one, other in zip(ahead, alone, strict=True))
    # a window of rows would fill what little of it a container has
    assert not any(medium.pixels.is_shared() for row in ahead for medium in row.media)


@pytest.mark.parametrize("workers", [0, 2])
def test_media_that_workers_decode_are_counted(embedder, items, workers):
    with counting() as counted:
        embedder.encode(items, workers=workers)

    assert counted["media_decoded"] == sum(len(item.media) for item in items)
    assert counted["language_rows"] == len(items)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_item_is_named_by_its_place(embedder, items, workers, tmp_path):
    bad = Item.of({"image": tmp_path / "gone.jpg"})

    with pytest.raises(InputError, match=r"item 10: .*gone\.jpg: expected a readable file, got No such file"):
        embedder.encode([*items[:10], bad, *items[10:], bad], workers=workers)


def test_a_killed_worker_is_told_in_words(embedder, items, monkeypatch):
    monkeypatch.setattr(embedder.backbone, "preprocessor", Killed(embedder.backbone.preprocessor))

    with pytest.raises(LostWorkerError, match="workers: expected worker processes that live, got one that ended"):
        embedder.encode([*items, Item.of("die")], workers=1)


def test_an_interrupt_ends_the_workers(embedder, items, monkeypatch):
    def interrupted(batch, features=None):
        raise KeyboardInterrupt

    monkeypatch.setattr(embedder, "forward", interrupted)
    before = active_children()
    with pytest.raises(KeyboardInterrupt) as held:
        embedder.encode(items, workers=1)

    # those that the frames would end when they are let go have ended too
    assert held.tb is not None
    assert active_children() == before


def test_few_items_start_no_worker(embedder, items):
    def process(item, side):
        return os.getpid()

    for few, least in ((items[:3], 0), (items, 1)):
        with rows_ahead(process, list(enumerate(few)), "query", workers=2) as made:
            others = set(made) - {os.getpid()}
        assert len(others) == 2 * least


def test_a_negative_number_of_workers_is_refused(embedder, items):
    with pytest.raises(InputError, match="workers: expected at least 0, got -1"):
        embedder.encode(items, workers=-1)


def test_a_gpu_gets_a_worker_for_each_core_and_a_cpu_none():
    cores = len(os.sched_getaffinity(0))

    assert usual_workers("cpu") == 0
    assert usual_workers("cuda:1") == min(MOST_WORKERS, cores)
    assert usual_workers("cuda", processes=cores + 1) == 0
