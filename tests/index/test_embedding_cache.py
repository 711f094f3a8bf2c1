"""The cache finds what was written, by whoever wrote it, and nothing else."""

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from mmembed.counters import counting
from mmembed.errors import InputError
from mmembed.files import fingerprint
from mmembed.index.embedding_cache import HEADER_BYTES, EmbeddingCache, Key, differences

ROOT = Path(__file__).parents[2]
PARTS = {"weights": "w1", "prompt": "raw"}


@pytest.fixture
def cache(tmp_path):
    return EmbeddingCache(tmp_path / "cache", max_bytes=1 << 20)


def key(word, instruction=""):
    return Key(fingerprint(word, instruction), fingerprint(word))


def keys(*words):
    return [key(word) for word in words]


def shards(space):
    return sorted(space.directory.glob("*.safetensors"))


def test_vectors_come_back_for_the_keys_that_are_there(cache):
    space = cache.space(PARTS)
    vectors = torch.randn(3, 4)
    space.add(keys("a", "b", "c"), vectors)

    with counting() as work:
        found, taken = cache.space(PARTS).take(keys("x", "c", "a", "y", "c"))

    assert found == [1, 2, 4]
    assert torch.equal(taken, vectors[[2, 0, 2]])
    assert work["cache_hits"] == 3


def test_vectors_of_several_shards_come_back_in_the_order_asked(cache):
    space = cache.space(PARTS)
    vectors = torch.randn(4, 2)
    space.add(keys("a", "b"), vectors[:2])
    space.add(keys("c", "d"), vectors[2:])

    found, taken = space.take(keys("d", "a", "c", "b"))

    assert found == [0, 1, 2, 3]
    assert torch.equal(taken, vectors[[3, 0, 2, 1]])


@pytest.mark.parametrize(
    "parts", [{"weights": "w2", "prompt": "raw"}, {"weights": "w1"}, {"weights": "w1", "prompt": "raw", "dtype": "f"}]
)
def test_another_model_finds_nothing(cache, parts):
    cache.space(PARTS).add(keys("a"), torch.ones(1, 2))

    found, taken = cache.space(parts).take(keys("a"))

    assert (found, len(taken)) == ([], 0)
    assert key("a") not in cache.space(parts)


def test_the_order_of_parts_does_not_matter(cache):
    cache.space(PARTS).add(keys("a"), torch.ones(1, 2))

    assert key("a") in cache.space(dict(reversed(PARTS.items())))


def test_nothing_is_there_before_something_is_written(cache):
    space = cache.space(PARTS)

    assert space.take(keys("a"))[0] == []
    assert (len(space), list(cache.spaces())) == (0, [])
    assert not cache.directory.exists()


def test_what_another_process_adds_is_found_after_a_look(cache):
    ours, theirs = cache.space(PARTS), cache.space(PARTS)
    theirs.add(keys("a"), torch.ones(1, 2))
    assert key("a") not in ours

    ours.refresh()

    assert key("a") in ours
    assert [space.name for space in cache.spaces()] == [ours.name]


def test_content_is_known_under_another_instruction(cache):
    space = cache.space(PARTS)
    space.add([key("a", "Find it.")], torch.ones(1, 2))

    assert key("a", "Other.") not in space
    assert space.knows_content(key("a", "Other."))
    assert not space.knows_content(key("b", "Find it."))


WRITER = """
import sys, torch
from mmembed.files import fingerprint
from mmembed.index.embedding_cache import HEADER_BYTES, EmbeddingCache, Key, differences
space = EmbeddingCache(sys.argv[1], max_bytes=1 << 24).space({"weights": "w"})
for i in range(40):
    words = [f"{sys.argv[2]} {i} {j}" for j in range(5)] + [f"shared {i}"]
    space.add([Key(fingerprint(w), fingerprint(w)) for w in words],
              torch.tensor([[float(i), float(j)] for j in range(6)]))
"""


def test_two_processes_that_write_at_once_lose_and_tear_nothing(tmp_path):
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), name], cwd=ROOT, stderr=subprocess.PIPE)
        for name in ("left", "right")
    ]
    assert [(w.communicate()[1], w.returncode) for w in writers] == [(b"", 0), (b"", 0)]

    space = EmbeddingCache(tmp_path, max_bytes=1 << 24).space({"weights": "w"})
    words = [f"{name} {i} {j}" for name in ("left", "right") for i in range(40) for j in range(5)]
    found, taken = space.take([Key(fingerprint(word), "") for word in words])

    assert len(shards(space)) == 80
    assert len(space) == 2 * 40 * 5 + 40
    assert found == list(range(len(words)))
    assert taken.tolist() == [[float(word.split()[1]), float(word.split()[2])] for word in words]
    assert list(tmp_path.glob("*/.*.part")) == []


@pytest.mark.parametrize("cut", [0, 4, 60, 200, -1])
def test_a_shard_that_was_cut_is_removed_and_only_it(cache, caplog, cut):
    space = cache.space(PARTS)
    space.add(keys("a", "b"), torch.ones(2, 3))
    (damaged,) = shards(space)
    space.add(keys("c"), torch.ones(1, 3))
    damaged.write_bytes(damaged.read_bytes()[:cut])

    again = cache.space(PARTS)
    found, _ = again.take(keys("a", "b", "c"))

    assert found == [2]
    assert "expected a whole shard" in caplog.text
    assert "computed again" in caplog.text
    assert not damaged.exists()
    again.add(keys("a", "b"), torch.zeros(2, 3))
    assert cache.space(PARTS).take(keys("a", "b", "c"))[0] == [0, 1, 2]


def test_every_flipped_byte_of_a_shard_is_noticed(cache):
    space = cache.space(PARTS)
    vectors = torch.randn(2, 2)
    space.add(keys("a", "b"), vectors)
    (path,) = shards(space)
    whole = path.read_bytes()

    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        found, taken = cache.space(PARTS).take(keys("a", "b"))
        # a byte of a name in the header's padding may change nothing; what is given must be what was written
        assert all(torch.equal(taken[i], vectors[row]) for i, row in enumerate(found)), place
        path.write_bytes(whole)


def test_a_shard_that_went_away_is_a_miss(cache):
    space = cache.space(PARTS)
    space.add(keys("a"), torch.ones(1, 2))
    for path in shards(space):
        path.unlink()

    assert space.take(keys("a"))[0] == []


def age(path, seconds):
    os.utime(path, (time.time() - seconds, time.time() - seconds))


def test_the_bound_is_kept_by_removing_what_was_not_used_for_longest(tmp_path):
    vectors = torch.ones(10, 16)
    size = 10 * (16 * 4 + 32) + HEADER_BYTES
    cache = EmbeddingCache(tmp_path, max_bytes=7 * size // 2)
    for number, name in enumerate(("old", "used", "new")):
        space = cache.space({"weights": name})
        space.add([key(f"{name} {i}") for i in range(10)], vectors)
        age(shards(space)[0], 1000 * (3 - number))
    old = cache.space({"weights": "old"})
    cache.space({"weights": "used"}).take([key("used 0")])

    assert cache.space({"weights": "more"}).add([key(f"more {i}") for i in range(10)], vectors)

    kept = {space.parts["weights"] for space in cache.spaces() if len(space)}
    assert kept == {"used", "new", "more"}
    assert old.take([key("old 0")])[0] == []
    assert sum(path.stat().st_size for path in tmp_path.rglob("*.safetensors")) <= 7 * size // 2


def test_what_this_run_uses_is_never_removed_for_more(tmp_path, caplog):
    space = EmbeddingCache(tmp_path, max_bytes=2000).space(PARTS)
    assert space.add(keys("a", "b"), torch.ones(2, 100))

    assert not space.add(keys("c", "d"), torch.ones(2, 200))

    assert space.take(keys("a", "b", "c"))[0] == [0, 1]
    assert "full at 2000 bytes; vectors are not kept" in caplog.text


def test_a_disk_that_is_full_costs_the_cache_and_not_the_run(cache, caplog, monkeypatch):
    def no_space(*args, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("mmembed.index.embedding_cache.save_file", no_space)
    space = cache.space(PARTS)

    assert not space.add(keys("a"), torch.ones(1, 2))

    assert "No space left on device; vectors are not kept" in caplog.text
    assert list(cache.directory.rglob("*.part")) == []
    assert space.take(keys("a"))[0] == []


def test_what_a_killed_writer_left_is_swept_away_after_a_day(cache):
    space = cache.space(PARTS)
    space.add(keys("a"), torch.ones(1, 2))
    fresh, stale = space.directory / ".x.safetensors.1.part", space.directory / ".x.safetensors.2.part"
    fresh.touch()
    stale.touch()
    age(stale, 2 * 24 * 3600)

    space.add(keys("b"), torch.ones(1, 2))

    assert (fresh.exists(), stale.exists()) == (True, False)


def test_a_bound_of_nothing_is_refused(tmp_path):
    with pytest.raises(InputError, match="cache: expected room for at least 1 byte, got 0"):
        EmbeddingCache(tmp_path, max_bytes=0)


def test_what_cannot_fit_removes_nothing(tmp_path):
    cache = EmbeddingCache(tmp_path, max_bytes=3000)
    for name in ("a", "b"):
        cache.space({"weights": name}).add(keys(name), torch.ones(1, 50))

    assert not cache.space(PARTS).add(keys("c"), torch.ones(1, 4000))

    assert [len(space) for space in cache.spaces()] == [1, 1]


def test_a_shard_out_of_reach_is_a_miss_and_stays(cache, caplog, monkeypatch):
    space = cache.space(PARTS)
    space.add(keys("a"), torch.ones(1, 2))

    def denied(*args, **options):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("mmembed.index.embedding_cache.safe_open", denied)

    assert cache.space(PARTS).take(keys("a"))[0] == []
    assert space.take(keys("a"))[0] == []
    assert "Permission denied; its vectors are computed again" in caplog.text
    assert len(shards(space)) == 1


def test_a_shard_of_another_user_is_read_though_it_cannot_be_marked_as_used(cache, monkeypatch):
    cache.space(PARTS).add(keys("a"), torch.ones(1, 2))

    def denied(*args, **options):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr("mmembed.index.embedding_cache.os.utime", denied)

    assert cache.space(PARTS).take(keys("a"))[0] == [0]


def test_a_space_without_a_readable_name_is_left_out(cache, caplog):
    cache.space(PARTS).add(keys("a"), torch.ones(1, 2))
    (cache.directory / "torn").mkdir()
    (cache.directory / "torn/space.json").write_text('{"weights": ')

    assert [space.parts for space in cache.spaces()] == [PARTS]
    assert "torn/space.json" in caplog.text


def test_a_part_that_one_of_them_lacks_is_a_difference():
    assert differences({"a": "1", "b": "2"}, {"b": "3", "c": "4"}) == ["a nothing -> 1", "b 3 -> 2", "c 4 -> nothing"]


def test_fingerprints_are_shown_by_their_first_digits_and_versions_whole():
    found = differences(
        {"weights": "a" * 32, "torch": "2.11.0+rocm6.3"}, {"weights": "b" * 32, "torch": "2.11.0+rocm6.2"}
    )

    assert found == [f"weights {'b' * 12} -> {'a' * 12}", "torch 2.11.0+rocm6.2 -> 2.11.0+rocm6.3"]
