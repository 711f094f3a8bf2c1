"""The train command under torchrun: two processes end where one does, validate, stop and go on together."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from data_prep.demo import Sizes, make_demo
from tests.cases import TINY

pytestmark = pytest.mark.acceptance
ROOT = Path(__file__).parents[2]
PIPES = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
# odd batches, so that the ranks have unequal shares, and slices of three rows over two ranks
OPTIONS = [
    "--stages.first.sampling", "{batch_size: 5, block_size: 3}", "--stages.first.validation", "{rows: 3, every: 2}",
    "--stages.second.sampling", "{batch_size: 3, block_size: 2}", "--stages.first.steps", "8",
    "--stages.first.optim.eps", "1e-3", "--stages.second.optim.eps", "1e-3",
]  # fmt: skip


@pytest.fixture(scope="module")
def train(tmp_path_factory):
    """Start the command in so many processes."""
    folder = tmp_path_factory.mktemp("processes")
    make_demo(folder / "data/demo", 0, Sizes(singles=30, pairs=30, clips=12, pages=8, tests=4))
    (folder / "tiny.yaml").write_text(TINY)

    def start(world, output, *options):
        launcher = [] if world == 1 else ["-m", "torch.distributed.run", "--nproc-per-node", str(world)]
        places = ["--config", "tiny.yaml", "--data-root", "data", "--output", output, *OPTIONS, *options]
        command = [sys.executable, *launcher, str(ROOT / "scripts/train.py"), *places]
        env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        return subprocess.Popen(command, cwd=folder, env=env, **PIPES)

    def finish(world, output, *options):
        process = start(world, output, *options)
        said, error = process.communicate(timeout=300)
        assert process.returncode == 0, error[-4000:]
        return said

    finish.start, finish.folder = start, folder
    return finish


def steps(log):
    """Steps that a run has logged over all its lives."""
    return sum(" items/s" in line for line in log.read_text().splitlines()) if log.exists() else 0


def children(pid):
    """The processes that a process started."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def difference(folder, ours, theirs):
    found = [load_file(folder / run / "final/model.safetensors") for run in (ours, theirs)]
    assert found[0].keys() == found[1].keys()
    return max(np.abs(found[0][name] - found[1][name]).max() for name in found[0])


def validations(folder, run):
    lines = (folder / run / "train.log").read_text().splitlines()
    return [line.split("validation after ")[1] for line in lines if "validation after " in line]


@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_two_processes_end_where_one_does(strategy, train):
    # eight steps of Adam on a random model enlarge the rounding of the first
    options = [f"--stages.{stage}.strategy={strategy}" for stage in ("first", "second")]

    train(1, f"{strategy}-one", *options)
    said = train(2, f"{strategy}-two", *options)

    assert said.count("trained: ") == 1
    assert difference(train.folder, f"{strategy}-one", f"{strategy}-two") <= 1e-5
    one, two = (validations(train.folder, f"{strategy}-{world}") for world in ("one", "two"))
    assert [line.split("  loss")[0] for line in one] == [line.split("  loss")[0] for line in two]
    assert len(one) == 4
    log = (train.folder / f"{strategy}-two/train.log").read_text()
    assert "2 processes on 1 machine" in log
    assert json.loads((train.folder / f"{strategy}-two/run.json").read_text())["state"] == "done"


@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_two_processes_stop_and_go_on_together_to_the_same_bits(strategy, train):
    options = [f"--stages.first.strategy={strategy}", "--stages.first.steps", "60", "--stages.first.workers", "1"]
    train(2, f"{strategy}-whole", *options)
    log = train.folder / f"{strategy}-stopped/train.log"
    for ask in (signal.SIGTERM, signal.SIGKILL):
        before = steps(log)
        process = train.start(2, f"{strategy}-stopped", *options, "--stages.first.checkpoints.every", "5")
        while process.poll() is None and steps(log) <= before + 12:
            time.sleep(0.02)
        # the launcher hands SIGTERM on, and ends with the processes where one is killed
        process.send_signal(ask) if ask == signal.SIGTERM else os.kill(children(process.pid)[1], ask)
        process.communicate(timeout=120)
        assert process.returncode != 0

    train(2, f"{strategy}-stopped", *options, "--stages.first.checkpoints.every", "5")

    assert difference(train.folder, f"{strategy}-whole", f"{strategy}-stopped") == 0
    assert log.read_text().count("goes on from step-") == 2


def test_an_error_of_the_first_process_ends_all(train):
    train(2, "claimed")

    process = train.start(2, "claimed", "--seed", "1")
    _, error = process.communicate(timeout=120)

    assert process.returncode != 0
    assert "with other settings (seed was 0, is 1)" in error


@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
@pytest.mark.parametrize("worlds", [(1, 2), (2, 1)])
def test_the_number_of_processes_may_change_between_the_lives_of_a_run(worlds, strategy, train):
    run = f"{strategy}-{worlds[0]}-then-{worlds[1]}"
    options = [f"--stages.first.strategy={strategy}", "--stages.first.steps", "40", "--stages.first.optim.ema", "0.5"]
    # forty steps enlarge the rounding of the first, in proportion to the rate
    options += ["--stages.first.optim.lr", "2e-4"]
    train(1, f"{run}-constant", *options)
    log = train.folder / run / "train.log"
    process = train.start(worlds[0], run, *options)
    while process.poll() is None and steps(log) < 6:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)

    train(worlds[1], run, *options)

    assert log.read_text().count("goes on from step-") == 1
    assert difference(train.folder, f"{run}-constant", run) <= 1e-5
