"""Batches do not know how many workers and ranks prepared them, and workers leave signals to the main process."""

import json
import os
import signal
import subprocess
import sys

import pytest
import torch

from mmembed.data.batching import StepDataset, step_loader
from mmembed.data.mixture import open_mixture
from mmembed.data.settings import Sampling, Source
from mmembed.data.tables import write_pairs
from mmembed.errors import InputError, MediaError
from mmembed.items import Item, Pair
from tests.cases import is_alive


class Plain:
    """A batch stands for everything that a model could see."""

    by_step = False

    def prepare(self, pair, step):
        return pair

    def assemble(self, step, prepared, bad):
        return {"step": step, "pairs": prepared, "bad": bad}


class RefuseStepTwo(Plain):
    def assemble(self, step, prepared, bad):
        if step == 2:
            raise MediaError("clip.mp4", expected="a video", got="noise", remedy="fetch it again")
        return step


class NameProcess(Plain):
    """Says which process prepares, up to step 20."""

    def assemble(self, step, prepared, bad):
        if step == 20:
            raise InputError("step", expected="less than 20", got=step, remedy="stop")
        return os.getpid()


def dataset(folder, preparer=None, **ranks):
    for name in ("a.jsonl", "b.parquet"):
        write_pairs(folder / name, [Pair(Item.of(f"{name} {i}"), (Item.of(f"target {i}"),)) for i in range(40)])
    sources = {"a": Source("a.jsonl"), "b": Source("b.parquet", weight=2.0)}
    sampling = Sampling(batch_size=12, block_size=4, window=8)
    mixture = open_mixture(sources, sampling, seed=3, data_root=folder)
    return StepDataset(mixture, preparer or Plain(), **ranks)


@pytest.mark.filterwarnings("ignore:This DataLoader will create 4 worker processes")
def test_workers_do_not_change_the_batches(tmp_path):
    steps = dataset(tmp_path)
    expected = [steps[step] for step in range(2, 9)]

    assert expected[0]["step"] == 2
    assert all(batch["bad"] == () for batch in expected)
    for num_workers in (0, 1, 4):
        assert list(step_loader(steps, 2, 9, num_workers)) == expected


def test_a_restart_goes_on_with_the_same_batches(tmp_path):
    steps = dataset(tmp_path)

    whole = list(step_loader(steps, 0, 10, 0))

    assert list(step_loader(steps, 0, 4, 0)) + list(step_loader(steps, 4, 10, 1)) == whole


@pytest.mark.parametrize("world", [1, 2, 5, 12])
def test_ranks_share_the_rows_of_the_global_batch(tmp_path, world):
    ranks = [dataset(tmp_path, rank=rank, world=world) for rank in range(world)]

    for step in range(3):
        parts = [part[step]["pairs"] for part in ranks]
        shared = [parts[i % world][i // world] for i in range(12)]
        assert sum(map(len, parts)) == 12
        assert shared == ranks[0].mixture.pairs(step)


def test_a_rank_prepares_only_its_own_rows(tmp_path):
    prepared = []

    class Count(Plain):
        def prepare(self, pair, step):
            prepared.append(pair)

    steps = dataset(tmp_path, Count(), rank=1, world=3)
    steps[5]

    assert prepared == steps.mixture.pairs(5)[1::3]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_error_in_a_worker_stays_what_it_is(tmp_path, num_workers):
    batches = iter(step_loader(dataset(tmp_path, RefuseStepTwo()), 0, 5, num_workers))

    assert [next(batches), next(batches)] == [0, 1]
    with pytest.raises(MediaError) as caught:
        next(batches)
    assert str(caught.value) == "clip.mp4: expected a video, got noise; fetch it again"


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_bad_row_names_file_and_line_through_workers(tmp_path, num_workers):
    (tmp_path / "t.jsonl").write_text(json.dumps({"query": "", "positives": ["p"]}))
    mixture = open_mixture({"t": Source("t.jsonl")}, Sampling(1, 1, 1), seed=0, data_root=tmp_path)

    with pytest.raises(InputError, match=r"t\.jsonl: line 1: query: item: expected some text or media, got empty text"):
        list(step_loader(StepDataset(mixture, Plain()), 0, 1, num_workers))


def test_loading_leaves_the_global_random_state_alone(tmp_path):
    before = torch.get_rng_state()

    list(step_loader(dataset(tmp_path), 0, 2, 1))

    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_outlives_a_signal(tmp_path, number):
    batches = iter(step_loader(dataset(tmp_path, NameProcess()), 0, 20, 1))
    worker = next(batches)

    os.kill(worker, number)

    assert worker != os.getpid()
    assert list(batches) == [worker] * 19


def test_workers_end_when_their_batches_are_left(tmp_path):
    batches = iter(step_loader(dataset(tmp_path, NameProcess()), 0, 20, 1))
    worker = next(batches)

    batches.close()

    assert not is_alive(worker)


def test_workers_end_though_somebody_holds_their_error(tmp_path):
    batches = iter(step_loader(dataset(tmp_path, NameProcess()), 0, 30, 1))
    worker = next(batches)

    with pytest.raises(InputError, match="step: expected less than 20") as held:
        list(batches)

    assert held.tb is not None
    assert not is_alive(worker)


LEAVE = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from mmembed.data.batching import StepDataset, step_loader
from mmembed.data.mixture import open_mixture
from mmembed.data.settings import Sampling, Source

class Plain:
    by_step = False

    def prepare(self, pair, step):
        return pair
    def assemble(self, step, prepared, bad):
        return step

mixture = open_mixture({"t": Source("t.jsonl")}, Sampling(2, 2, 2), seed=0, data_root=Path(sys.argv[1]))
batches = iter(step_loader(StepDataset(mixture, Plain()), 0, 50, 1))
next(batches)
sys.exit("left in the middle")
"""


def test_a_process_ends_in_the_middle_of_its_batches(tmp_path):
    write_pairs(tmp_path / "t.jsonl", [Pair(Item.of("q"), (Item.of("p"),))])

    ended = subprocess.run([sys.executable, "-c", LEAVE, str(tmp_path)], capture_output=True, text=True, timeout=60)

    assert (ended.returncode, ended.stderr.strip()) == (1, "left in the middle")
