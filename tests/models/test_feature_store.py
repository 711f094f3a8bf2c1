"""Features on disk: what is read is what was written, damage, bounds, full disks, several processes."""

import json
import logging
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mmembed.errors import InputError
from mmembed.models.feature_store import FeatureStore, MediumFeatures

ROOT = Path(__file__).parents[2]
NAMES = [f"{number:032x}" for number in range(1, 20)]
GB = 1 << 30


def store_in(folder, parts=None, max_bytes=GB):
    return FeatureStore(folder, parts or {"weights": "a"}, max_bytes=max_bytes)


def features(seed=0, dtype=torch.float32, tokens=6):
    draw = torch.Generator().manual_seed(seed)
    map_, first, second, tap = torch.randn(4, tokens, 8, generator=draw).to(dtype)
    return MediumFeatures(map_, (first, second), (tap[:, :3],))


def same(one, other):
    ours, theirs = one.named(), other.named()
    return ours.keys() == theirs.keys() and all(
        ours[name].dtype == theirs[name].dtype and torch.equal(ours[name], theirs[name]) for name in ours
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_what_is_read_is_what_was_written_to_the_bit(dtype, tmp_path):
    store_in(tmp_path).put(NAMES[0], features(dtype=dtype))

    assert same(store_in(tmp_path).take(NAMES[0]), features(dtype=dtype))
    assert store_in(tmp_path).take(NAMES[1]) is None


def test_many_layers_come_back_in_their_order(tmp_path):
    layers = tuple(torch.full((2, 3), float(i)) for i in range(12))

    store_in(tmp_path).put(NAMES[0], MediumFeatures(torch.zeros(2, 3), layers))

    assert [layer[0, 0].item() for layer in store_in(tmp_path).take(NAMES[0]).layers] == list(range(12))


def test_another_tower_has_a_space_of_its_own_which_says_what_it_is(tmp_path):
    ours, theirs = store_in(tmp_path, {"weights": "a"}), store_in(tmp_path, {"weights": "b"})

    ours.put(NAMES[0], features())

    assert theirs.take(NAMES[0]) is None
    assert json.loads((ours.directory / "space.json").read_text()) == {"weights": "a"}


def flip(data, place):
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


DAMAGE = {
    "truncated": lambda data: data[: len(data) // 2],
    "empty": lambda data: b"",
    "a number": lambda data: flip(data, len(data) - 40),
    "the header": lambda data: flip(data, 20),
    "no safetensors": lambda data: b"something else " * 50,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_told_counts_as_missing_and_is_written_anew(damage, tmp_path, caplog):
    store = store_in(tmp_path)
    store.put(NAMES[0], features())
    path = store.path(NAMES[0])
    path.write_bytes(DAMAGE[damage](path.read_bytes()))

    assert store.take(NAMES[0]) is None
    assert f"{path}: damaged" in caplog.text
    store.put(NAMES[0], features())
    assert same(store.take(NAMES[0]), features())


def test_the_bound_is_kept_and_what_was_read_lately_stays(tmp_path):
    size = store_size(tmp_path / "one")
    store = store_in(tmp_path / "many", max_bytes=5 * size)
    for number, name in enumerate(NAMES[:5]):
        store.put(name, features(number))
        os.utime(store.path(name), (number, number))
    assert store.take(NAMES[0]) is not None

    store.put(NAMES[5], features(5))

    there = [store.path(name).exists() for name in NAMES[:6]]
    assert (there[0], there[1], there[5]) == (True, False, True)
    assert sum(path.stat().st_size for path in store.directory.glob("*/*")) <= 5 * size


def store_size(folder):
    store = store_in(folder)
    store.put(NAMES[0], features())
    return store.path(NAMES[0]).stat().st_size


def test_features_over_the_whole_bound_are_told_once_and_others_still_kept(tmp_path, caplog):
    store = store_in(tmp_path, max_bytes=2 * store_size(tmp_path / "one"))

    for name in NAMES[:2]:
        store.put(name, features(tokens=1000))
    store.put(NAMES[2], features())

    assert caplog.text.count("over the bound") == 1
    assert [store.take(name) is not None for name in NAMES[:3]] == [False, False, True]


def test_a_full_disk_is_told_once_in_words_and_reading_goes_on(tmp_path, caplog):
    store = store_in(tmp_path)
    store.put(NAMES[0], features())
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # no file may grow beyond so many bytes: to a process the same as a full disk
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        for name in NAMES[1:4]:
            store.put(name, features())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

    assert caplog.text.count("no more features are kept, all goes on without") == 1
    assert same(store.take(NAMES[0]), features())
    assert [path.name for path in store.directory.glob("*/*")] == [store.path(NAMES[0]).name]


def test_a_folder_that_cannot_be_made_is_told_and_nothing_is_raised(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    store = store_in(tmp_path / "file")

    store.put(NAMES[0], features())

    assert store.take(NAMES[0]) is None
    assert "no more features are kept" in caplog.text


def test_a_store_without_room_is_refused(tmp_path):
    with pytest.raises(InputError, match="room for at least 1 byte"):
        store_in(tmp_path, max_bytes=0)


WRITER = """
import sys
sys.path.insert(0, sys.argv[1])
from tests.models.test_feature_store import NAMES, features, same, store_in
store = store_in(sys.argv[2], max_bytes=int(sys.argv[3]))
for turn in range(8):
    for number, name in enumerate(NAMES):
        found = store.take(name)
        assert found is None or same(found, features(number)), name
        store.put(name, features(number))
"""


def test_two_processes_may_write_read_and_evict_the_same_at_once(tmp_path):
    bound = 10 * store_size(tmp_path / "one")
    command = [sys.executable, "-c", WRITER, str(ROOT), str(tmp_path / "both"), str(bound)]

    running = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]

    said = [process.communicate(timeout=120)[1] for process in running]
    assert [process.returncode for process in running] == [0, 0], said
    assert "damaged" not in "".join(said)
    store = store_in(tmp_path / "both")
    files = list(store.directory.glob("*/*"))
    assert files and not [path for path in files if path.suffix == ".part"]
    assert sum(path.stat().st_size for path in files) <= bound
    found = [store.take(name) for name in NAMES]
    assert all(one is None or same(one, features(number)) for number, one in enumerate(found))


def test_nothing_is_logged_where_all_is_well(tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    store = store_in(tmp_path)

    store.put(NAMES[0], features())
    store.take(NAMES[0])
    store.take(NAMES[1])

    assert caplog.text == ""
