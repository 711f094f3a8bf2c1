"""Vectors, errors and counts do not depend on how many workers prepare the rows."""

import os
import signal
import threading
import time
from itertools import accumulate
from multiprocessing import active_children

import pytest
import torch

from mmembed import Item
from mmembed.counters import counting
from mmembed.errors import InputError
from mmembed.models.ahead import MOST_WORKERS, rows_ahead, usable_cores, usual_workers
from mmembed.models.encoding import WINDOW_CHUNKS
from mmembed.workers import AHEAD, DRAIN, LostWorkerError


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


class Noted:
    """Prepares items, and leaves a file of each one's name."""

    def __init__(self, preprocess, folder):
        self.preprocess, self.folder = preprocess, folder

    def __call__(self, item, side):
        (self.folder / item.text).touch()
        return self.preprocess(item, side)


def drain_threads():
    return [thread for thread in threading.enumerate() if thread.name == DRAIN]


def rows_of(embedder, items, workers):
    with rows_ahead(embedder.backbone.preprocessor, list(enumerate(items)), "query", workers) as rows:
        return list(rows)


def equal(one, other):
    tensors = [torch.equal(getattr(one, name), getattr(other, name)) for name in ("ids", "kinds", "positions")]
    media = [torch.equal(a.pixels, b.pixels) for a, b in zip(one.media, other.media, strict=True)]
    return all(tensors + media) and one.fingerprint == other.fingerprint and one.side == other.side


@pytest.mark.parametrize("batch_tokens", [None, 20, 1])
def test_vectors_and_work_are_bit_by_bit_those_without_workers(embedder, items, batch_tokens):
    """In one window, in some, and in one for almost every row."""
    vectors, works = [], []
    for workers in (0, 1, 2):
        with counting() as work:
            vectors.append(embedder.encode([*items, *items[:3]], batch_tokens=batch_tokens, workers=workers))
        del work["templates_rendered"]
        works.append(work)

    assert torch.equal(vectors[1], vectors[0])
    assert torch.equal(vectors[2], vectors[0])
    assert works[0] == works[1] == works[2]


def test_the_next_window_arrives_while_the_model_runs(embedder, monkeypatch, tmp_path):
    texts = [f"text{i}" for i in range(160)]
    lengths = [len(row) for row in embedder.prepare([Item.of(text) for text in texts], "query")]
    batch_tokens = 2 * max(lengths)
    tokens, group = batch_tokens * WINDOW_CHUNKS, 8
    ends = list(accumulate(lengths))
    # a window ends with the row after it, whose group the model's process has taken
    in_first = next(i for i, end in enumerate(ends) if end >= tokens) + 1
    taken = (in_first // group + 1) * group
    drained = next(i for i in range(taken, 160, group) if ends[i + group - 1] - ends[taken - 1] >= tokens) + group
    last = drained + AHEAD * group - 1
    made = []

    def wait(*_):
        ended = time.monotonic() + 60
        while not made and not (tmp_path / texts[last]).exists():
            assert time.monotonic() < ended, f"only {len(list(tmp_path.iterdir()))} texts were prepared"
            time.sleep(0.01)
        # a moment to see that it is the last
        time.sleep(0 if made else 0.1)
        made.append(len(list(tmp_path.iterdir())))

    expected = embedder.encode(texts, batch_tokens=batch_tokens)
    monkeypatch.setattr(embedder.backbone, "preprocessor", Noted(embedder.backbone.preprocessor, tmp_path))
    hook = embedder.backbone.language_model.register_forward_pre_hook(wait)
    try:
        vectors = embedder.encode(texts, batch_tokens=batch_tokens, workers=1)
    finally:
        hook.remove()

    assert last + 1 < len(texts)
    assert made[0] == last + 1
    assert made[-1] == len(texts)
    assert torch.equal(vectors, expected)


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


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_windows_before_a_bad_item_are_encoded_before_it_is_told(embedder, items, workers, tmp_path):
    bad = Item.of({"image": tmp_path / "gone.jpg"})

    with counting() as counted, pytest.raises(InputError, match="item 12: "):
        embedder.encode([*items, bad, *items], batch_tokens=1, workers=workers)

    # 12 rows, or three groups of four; the last of them waits for the row after it
    assert counted["language_rows"] == 11
    assert drain_threads() == []


def test_a_killed_worker_is_told_in_words(embedder, items, monkeypatch):
    monkeypatch.setattr(embedder.backbone, "preprocessor", Killed(embedder.backbone.preprocessor))

    with pytest.raises(LostWorkerError, match="workers: expected worker processes that live, got one that ended"):
        embedder.encode([*items, Item.of("die")], workers=1)
    assert drain_threads() == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_what_ends_the_model_ends_the_workers_and_the_thread(embedder, items, monkeypatch, error):
    def ended(batch, features=None):
        assert len(drain_threads()) == 1
        raise error

    monkeypatch.setattr(embedder, "forward", ended)
    before = active_children()
    with pytest.raises(error) as held:
        embedder.encode(items, batch_tokens=1, workers=1)

    # those that the frames would end when they are let go have ended too
    assert held.tb is not None
    assert active_children() == before
    assert drain_threads() == []


def test_without_workers_there_is_no_thread(embedder, items, monkeypatch):
    forward, threads = embedder.forward, []

    def noting(batch, features=None):
        threads.extend(drain_threads())
        return forward(batch, features)

    monkeypatch.setattr(embedder, "forward", noting)
    embedder.encode(items)

    assert threads == []


def test_few_items_start_no_worker(embedder, items):
    def process(item, side):
        return (os.getpid(),)

    for few, least in ((items[:3], 0), (items, 1)):
        with rows_ahead(process, list(enumerate(few)), "query", workers=2) as made:
            others = set(made) - {(os.getpid(),)}
        assert len(others) == 2 * least


def test_a_negative_number_of_workers_is_refused(embedder, items):
    with pytest.raises(InputError, match="workers: expected at least 0, got -1"):
        embedder.encode(items, workers=-1)


def test_a_gpu_gets_a_worker_for_each_core_and_a_cpu_none():
    cores = usable_cores()

    assert usual_workers("cpu") == 0
    assert usual_workers("cuda:1") == min(MOST_WORKERS, cores)
    assert usual_workers("cuda", processes=cores + 1) == 0


@pytest.mark.parametrize(
    ("quota", "cores"),
    [("max 100000", None), ("100000 100000", 1), ("150000 100000", 1), ("50000 100000", 1), ("", None)],
)
def test_a_containers_quota_bounds_the_cores(tmp_path, quota, cores):
    (tmp_path / "cpu.max").write_text(f"{quota}\n")
    all_of_them = len(os.sched_getaffinity(0))

    assert usable_cores(tmp_path / "cpu.max") == (cores or all_of_them)
    assert usable_cores(tmp_path / "none") == all_of_them


def test_a_quota_of_more_than_there_are_gives_no_core_more(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(6)))
    quota = tmp_path / "cpu.max"

    for milliseconds, cores in ((100, 1), (250, 2), (600, 6), (900, 6)):
        quota.write_text(f"{milliseconds}000 100000\n")
        assert usable_cores(quota) == cores
