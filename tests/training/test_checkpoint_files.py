"""Checkpoints as folders: what comes back, what is refused, what a kill or a full disk leaves, what is kept."""

import errno
import json
import os
import resource
import shutil
import sys
import traceback
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

from mmembed.errors import InputError
from mmembed.files import bytes_fingerprint
from mmembed.training.checkpoint import (
    CheckpointFiles,
    base_fingerprint,
    check_facts,
    checkpoint_path,
    clean_leftovers,
    latest,
    list_checkpoints,
    prune,
    verify,
)

FILES = ["checkpoint.json", "state.pt", "weights.safetensors"]
FACTS = {"recipe": "abc", "base": "def", "seed": 3, "world": 2}


def checkpoint_of(step, **more):
    weights = {"a": torch.full((2, 2), float(step)), "b": torch.arange(3)}
    return {"state_dict": weights, "global_step": step, "facts": FACTS, **more}


def save(directory, *steps):
    """A small checkpoint for each step; the paths."""
    paths = [checkpoint_path(directory, step) for step in steps]
    for step, path in zip(steps, paths, strict=True):
        CheckpointFiles().save_checkpoint(checkpoint_of(step), path)
    return paths


def error_of_saving(checkpoint, path):
    try:
        CheckpointFiles().save_checkpoint(checkpoint, path)
    except OSError as error:
        return error
    return None


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def bits(value):
    """A value in which tensors are their type, shape and bytes."""
    if isinstance(value, torch.Tensor):
        flat = value.detach().contiguous().flatten()
        return value.dtype, tuple(value.shape), flat.view(torch.uint8).tolist()
    if isinstance(value, dict):
        return {name: bits(entry) for name, entry in value.items()}
    return [bits(entry) for entry in value] if isinstance(value, list | tuple) else value


def in_child(work):
    """Run ``work`` in a process of its own, which may die; its exit code."""
    with warnings.catch_warnings():
        # later Pythons warn of threads, none of which the children need
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def killed_at_each_call(work, reset):
    """Yield after a process doing ``work`` was killed at its first call to the file system, its second, and so on."""
    calls = {"open", "tempfile.mkdtemp", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod"}
    for last in range(1, 100):
        reset()

        def dies(last=last):
            left = [last]

            def count(event, _):
                left[0] -= event in calls
                if left[0] == 0:
                    os._exit(9)

            sys.addaudithook(count)
            work()

        code = in_child(dies)
        yield last
        if code != 9:
            assert code == 0
            return


def test_what_was_saved_comes_back_bit_for_bit(tmp_path):
    base = torch.randn(6, 4)
    weights = {
        "tied": base, "tied.again": base, "part": base[1:3], "turned": base.T, "strided": base[:, ::2],
        "half": torch.randn(3).bfloat16(), "flags": torch.tensor([True, False]), "one": torch.tensor(2.5),
        "none": torch.zeros(0, 3), "odd": torch.tensor([float("nan"), -0.0, float("inf")]),
        "trained": nn.Parameter(torch.randn(2)), "double": torch.randn(2).double(), "bytes": torch.arange(5).byte(),
    }  # fmt: skip
    moments = {0: {"step": torch.tensor(3.0), "exp_avg": base.T.bfloat16()}, 1: {"exp_avg": base[::2]}}
    checkpoint = {
        "state_dict": weights, "global_step": 7, "epoch": 0, "facts": FACTS, "loops": {"fit": {"done": 7}, 3: (1, "x")},
        "optimizer_states": [{"state": moments, "param_groups": [{"lr": 0.1, "params": [0, 1]}]}],
    }  # fmt: skip
    before = bits(checkpoint)
    path = checkpoint_path(tmp_path, 7)

    CheckpointFiles().save_checkpoint(checkpoint, path)
    found = CheckpointFiles().load_checkpoint(path)

    assert names(tmp_path) == ["step-00000007"]
    assert names(path) == FILES
    assert bits(checkpoint) == before
    assert bits(found) == before
    assert type(found["state_dict"]["trained"]) is torch.Tensor


def test_the_manifest_says_what_is_there(tmp_path):
    (path,) = save(tmp_path, 12)

    manifest = json.loads((path / "checkpoint.json").read_text())

    files = {name: (path / name).read_bytes() for name in ("weights.safetensors", "state.pt")}
    assert manifest["files"] == {n: {"bytes": len(b), "fingerprint": bytes_fingerprint(b)} for n, b in files.items()}
    assert (manifest["format"], manifest["step"], manifest["facts"]) == (1, 12, FACTS)
    assert verify(path) == FACTS


@pytest.mark.parametrize("name", FILES)
def test_a_checkpoint_cut_at_any_byte_is_refused(tmp_path, name):
    (path,) = save(tmp_path, 1)
    data = (path / name).read_bytes()
    for size in range(len(data)):
        (path / name).write_bytes(data[:size])
        with pytest.raises(InputError, match=name):
            CheckpointFiles().load_checkpoint(path)

    (path / name).write_bytes(data)
    assert bits(CheckpointFiles().load_checkpoint(path)) == bits(checkpoint_of(1))


@pytest.mark.parametrize("name", FILES)
def test_a_checkpoint_with_any_byte_changed_is_refused(tmp_path, name):
    (path,) = save(tmp_path, 1)
    data = (path / name).read_bytes()
    for place, byte in enumerate(data):
        (path / name).write_bytes(data[:place] + bytes([byte ^ (1 << place % 8)]) + data[place + 1 :])
        with pytest.raises(InputError, match=name):
            CheckpointFiles().load_checkpoint(path)


def write(name, text):
    return lambda path: (path / name).write_bytes(text)


def replace_by_a_file(path):
    shutil.rmtree(path)
    path.write_text("x")


def other_format(path):
    manifest = json.loads((path / "checkpoint.json").read_text())
    (path / "checkpoint.json").write_text(json.dumps(manifest | {"format": 2, "mmembed": "9.1"}))


def same_size(path):
    weights = path / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")


@pytest.mark.parametrize(
    ("damage", "where", "words"),
    [
        (shutil.rmtree, "", "expected a folder, got nothing there"),
        (replace_by_a_file, "", "expected a folder, got a file"),
        (lambda path: (path / "state.pt").unlink(), "/state.pt", "expected a file, got nothing there"),
        (lambda path: (path / "checkpoint.json").unlink(), "/checkpoint.json", "expected a file, got nothing there"),
        (write("more.bin", b"x"), "/more.bin", "expected only checkpoint.json, weights.safetensors, state.pt, got ano"),
        (write("state.pt", b"xyz"), "/state.pt", r"expected \d+ bytes, got 3 bytes"),
        (same_size, "/weights.safetensors", "expected bytes with the fingerprint [0-9a-f]{32}, got [0-9a-f]{32}"),
        (write("checkpoint.json", b"{"), "/checkpoint.json", r"expected JSON, got 1 bytes that are not \(Expecting"),
        (write("checkpoint.json", b"7"), "/checkpoint.json", "expected JSON, got 1 bytes that are not"),
        (other_format, "/checkpoint.json", "expected format 1, got format 2, written by mmembed 9.1"),
    ],
)
def test_what_is_wrong_is_said_in_words(tmp_path, damage, where, words):
    save(tmp_path, 400)
    (path,) = save(tmp_path, 500)
    damage(path)

    good = tmp_path / "step-00000400"
    remedy = f"; the last good one is step-00000400; go on with --resume {good}, or remove this one$"
    with pytest.raises(InputError, match=f"^{path}{where}: {words}.*{remedy}"):
        verify(path)


def test_a_hidden_file_of_the_system_is_not_of_the_checkpoint(tmp_path):
    (path,) = save(tmp_path, 1)
    (path / ".nfs0001").touch()

    assert verify(path) == FACTS


def test_the_remedy_passes_over_damaged_checkpoints(tmp_path):
    oldest, *damaged = save(tmp_path, 100, 200, 300)
    for path in damaged:
        same_size(path)

    with pytest.raises(InputError, match="last good one is step-00000100"):
        verify(damaged[-1])
    same_size(oldest)
    with pytest.raises(InputError, match="no checkpoint beside it is whole: remove this one and begin again"):
        verify(damaged[-1])


def test_checkpoints_are_listed_by_step_without_what_a_kill_left(tmp_path):
    save(tmp_path, 20, 3, 100_000_000)
    for other in (".step-00000030.x.part", ".step-00000040.x.old", "best", "step-5", "step-00000050.tmp"):
        (tmp_path / other).mkdir()
    (tmp_path / "step-00000060").touch()

    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-00000003", "step-00000020", "step-100000000"]
    assert latest(tmp_path) == checkpoint_path(tmp_path, 100_000_000)


def test_a_folder_without_checkpoints_has_none(tmp_path):
    assert list_checkpoints(tmp_path / "absent") == []
    assert latest(tmp_path / "absent") is None
    clean_leftovers(tmp_path / "absent")
    prune(tmp_path / "absent", 1)
    CheckpointFiles().remove_checkpoint(tmp_path / "absent")


def test_leftovers_are_cleaned_and_a_replaced_checkpoint_gets_its_name_back(tmp_path):
    save(tmp_path, 1, 2)
    (tmp_path / "step-00000001").rename(tmp_path / ".step-00000001.a_b.old")
    (tmp_path / ".step-00000002.cd.old").mkdir()
    (tmp_path / ".step-00000003.ef.part").mkdir()
    (tmp_path / ".step-00000003.ef.part/state.pt").write_text("half")

    clean_leftovers(tmp_path)

    assert names(tmp_path) == ["step-00000001", "step-00000002"]
    assert [verify(path) for path in list_checkpoints(tmp_path)] == [FACTS, FACTS]


@pytest.mark.parametrize("step", [2, 3])
def test_a_write_killed_at_any_call_leaves_a_whole_checkpoint_or_none(tmp_path, step):
    new = checkpoint_of(step, epoch=1)
    path = checkpoint_path(tmp_path, step)

    def reset():
        for left in tmp_path.iterdir():
            shutil.rmtree(left)
        save(tmp_path, 1, 2)

    states = []
    for _ in killed_at_each_call(lambda: CheckpointFiles().save_checkpoint(new, path), reset):
        if path.exists():
            verify(path)
        clean_leftovers(tmp_path)
        assert {"step-00000001", "step-00000002"} <= set(names(tmp_path)) <= {p.name for p in tmp_path.glob("step-*")}
        assert bits(CheckpointFiles().load_checkpoint(tmp_path / "step-00000001")) == bits(checkpoint_of(1))
        states.append(bits(CheckpointFiles().load_checkpoint(path)) == bits(new) if path.exists() else False)

    assert len(states) > 8
    assert states == sorted(states)
    assert states[-1]


def test_a_removal_killed_at_any_call_leaves_no_half_checkpoint(tmp_path):
    (path,) = save(tmp_path, 1)

    def remove():
        CheckpointFiles().remove_checkpoint(path)

    there = []
    for _ in killed_at_each_call(remove, lambda: save(tmp_path, 1)):
        there.append(path.exists())
        if path.exists():
            verify(path)
        clean_leftovers(tmp_path)
        assert names(tmp_path) == (["step-00000001"] if there[-1] else [])

    assert there == sorted(there, reverse=True)
    assert len(there) > 4
    assert not there[-1]


@pytest.mark.parametrize("large", ["state_dict", "optimizer_states"])
def test_a_file_that_grows_too_large_for_the_disk_is_reported_and_leaves_nothing(tmp_path, large):
    (old,) = save(tmp_path, 1)
    checkpoint = checkpoint_of(2, **{large: {"m": torch.randn(100_000), "n": torch.randn(3)}})

    def fill():
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        error = error_of_saving(checkpoint, checkpoint_path(tmp_path, 2))
        assert error is not None
        assert error.errno == errno.EFBIG
        assert Path(error.filename).name == ("weights.safetensors" if large == "state_dict" else "state.pt")

    assert in_child(fill) == 0
    assert names(tmp_path) == [old.name]
    assert verify(old) == FACTS
    assert error_of_saving(checkpoint, checkpoint_path(tmp_path, 2)) is None


@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize("call", range(5))
def test_a_disk_that_is_full_when_files_are_flushed_leaves_the_old_ones(tmp_path, monkeypatch, step, call):
    (old,) = save(tmp_path, 1)
    flushes, fsync = [], os.fsync

    def full(handle):
        flushes.append(handle)
        if len(flushes) > call:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", full)

    error = error_of_saving(checkpoint_of(step, epoch=1), checkpoint_path(tmp_path, step))

    assert error is not None
    assert error.errno == errno.ENOSPC
    assert bits(CheckpointFiles().load_checkpoint(old))["global_step"] == 1
    # the last flush is of the parent, when the new one is whole under its name
    assert names(tmp_path) == ([old.name, "step-00000002"] if step == 2 and call == 4 else [old.name])


class Unsaved:
    def __reduce__(self):
        raise RuntimeError("not of the disk")


def test_an_error_that_is_not_the_disks_is_raised_as_it_is(tmp_path):
    with pytest.raises(RuntimeError, match="not of the disk"):
        error_of_saving(checkpoint_of(1, x=Unsaved()), tmp_path / "a")
    assert names(tmp_path) == []


def test_what_could_not_be_opened_again_is_refused_when_it_is_saved(tmp_path):
    with pytest.raises(
        InputError, match=r"state.pt: expected tensors and plain values, got pathlib.\w*Path; let state_"
    ):
        CheckpointFiles().save_checkpoint(checkpoint_of(1, callbacks={"c": {"best": Path("x")}}), tmp_path / "a")
    assert names(tmp_path) == []


def test_storage_options_are_refused(tmp_path):
    with pytest.raises(TypeError, match="no storage_options"):
        CheckpointFiles().save_checkpoint(checkpoint_of(1), tmp_path / "a", storage_options={"bucket": "b"})


def kept_by_hand(steps, whole, keep, keep_every, last):
    """The slow twin of pruning: walk from the newest, counting whole ones."""
    kept, counted = [], 0
    for step in sorted(steps, reverse=True):
        if counted < keep or step == last or (keep_every and step % keep_every == 0):
            kept.append(step)
        counted += step in whole
    return sorted(kept)


@pytest.mark.parametrize(
    ("steps", "broken", "keep", "keep_every", "left"),
    [
        ([100, 200, 300], [], 2, None, [200, 300]),
        ([100, 200, 300, 400, 500], [], 1, 200, [200, 400, 500]),
        ([100, 200, 300], [300], 2, None, [100, 200, 300]),
        ([100, 200, 300], [300], 1, None, [200, 300]),
        ([100, 200, 300, 400], [200], 2, None, [300, 400]),
        ([100], [100], 1, None, [100]),
        ([100, 200], [], 5, None, [100, 200]),
        ([300, 100, 200], [], 1, None, [200, 300]),
        ([100, 200, 300], [], 0, None, [300]),
    ],
)
def test_pruning_keeps_the_newest_whole_ones_the_marked_and_the_last_written(
    tmp_path, steps, broken, keep, keep_every, left
):
    for age, path in enumerate(save(tmp_path, *steps)):
        os.utime(path, (1000 + age, 1000 + age))
    for step in broken:
        with (checkpoint_path(tmp_path, step) / "state.pt").open("ab") as file:
            file.write(b"x")

    prune(tmp_path, keep, keep_every)

    assert names(tmp_path) == [f"step-{step:08d}" for step in left]
    assert left == kept_by_hand(steps, set(steps) - set(broken), max(keep, 1), keep_every, steps[-1])


def test_nothing_is_pruned_where_nothing_is_whole(tmp_path):
    for path in save(tmp_path, 1, 2, 3):
        (path / "state.pt").unlink()

    prune(tmp_path, 1)

    assert len(names(tmp_path)) == 3


def test_facts_that_differ_are_all_named(tmp_path):
    words = "step-1: base, world: expected base xyz, world 8, got base def, world not given; resume with the recipe"
    with pytest.raises(InputError, match=words):
        check_facts({"recipe": "abc", "base": "def"}, {"recipe": "abc", "base": "xyz", "world": 8}, Path("step-1"))


def test_facts_that_agree_pass_whatever_else_the_checkpoint_says():
    check_facts({"recipe": "abc", "parts": [1, 2], "seed": 3}, {"recipe": "abc", "parts": (1, 2)}, Path("step-1"))


def test_base_weights_are_named_by_names_shapes_types_and_bytes():
    base = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(1.5), "c": torch.ones(4).bfloat16()}
    changed = [
        {**base, "b": torch.tensor(1.25)},
        {**base, "a": base["a"].reshape(3, 2)},
        {**base, "c": base["c"].view(torch.int16)},
        {"a": base["a"], "b": base["b"], "d": base["c"]},
        {"a": base["a"], "b": base["b"]},
    ]
    same = [list(reversed(base.items())), {**base, "a": base["a"].T.contiguous().T}.items(), nn.ParameterDict(base)]

    assert len({base_fingerprint(named.items()) for named in (base, *changed)}) == 6
    assert {base_fingerprint(iter(named.items() if hasattr(named, "items") else named)) for named in same} == {
        base_fingerprint(base.items())
    }


@pytest.mark.gpu
def test_tensors_of_a_gpu_have_the_same_name_and_come_back_on_the_cpu(tmp_path):
    there = {"a": torch.arange(3.0, device="cuda"), "b": torch.tensor(2.0, device="cuda").bfloat16()}
    here = {name: value.cpu() for name, value in there.items()}

    CheckpointFiles().save_checkpoint(checkpoint_of(1, state_dict=there, moments=there), tmp_path / "a")
    found = CheckpointFiles().load_checkpoint(tmp_path / "a")

    assert base_fingerprint(there.items()) == base_fingerprint(here.items())
    assert [value.device.type for part in ("state_dict", "moments") for value in found[part].values()] == ["cpu"] * 4
    assert bits(found["state_dict"]) == bits(found["moments"]) == bits(here)
