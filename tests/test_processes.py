"""What started the processes, and what they agree on before any of them writes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mmembed.commands import is_first_process, is_one_of_several
from mmembed.errors import InputError
from mmembed.processes import ALONE, Processes, everyone, joined, launcher

SLURM = {"SLURM_NTASKS": "8", "SLURM_PROCID": "3", "SLURM_JOB_NAME": "train", "SLURM_LOCALID": "3", "SLURM_NODEID": "0"}


# what FSDP2 does, which keeps the group; and a Python that gives its threads no turn until it waits
LEAVES_AT_ONCE = """
import sys
import torch.distributed as dist
from mmembed.processes import joined

with joined("cpu") as processes:
    kept = dist.group.WORLD
    sys.setswitchinterval(100)
    for word in range(20):
        processes.agree(word)
"""


@pytest.fixture(autouse=True)
def unlaunched(monkeypatch):
    for name in (*SLURM, "SLURM_NTASKS_PER_NODE", "RANK", "WORLD_SIZE", "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(name, raising=False)


def set_all(monkeypatch, values):
    for name, value in values.items():
        monkeypatch.setenv(name, value)


def test_a_plain_command_is_alone():
    with joined("cpu") as processes:
        assert processes is ALONE
        assert (processes.rank, processes.world, processes.nodes, processes.first) == (0, 1, 1, True)
        assert processes.agree("x") == "x"
        assert everyone(3) == [3]
    assert launcher() is None
    assert is_first_process()
    assert not is_one_of_several()


def test_slurm_starts_processes_and_does_not_resume_them_its_own_way(monkeypatch):
    set_all(monkeypatch, SLURM | {"SLURM_NTASKS_PER_NODE": "4"})

    environment = launcher()

    assert (environment.world_size(), environment.global_rank()) == (8, 3)
    assert not environment.auto_requeue
    assert not is_first_process()
    assert is_one_of_several()


def test_slurm_without_processes_for_each_machine_is_refused_in_words(monkeypatch):
    set_all(monkeypatch, SLURM)

    with pytest.raises(InputError, match=r"SLURM: expected --ntasks-per-node, got .*; give the number of processes"):
        launcher()


def test_machines_with_different_numbers_of_processes_are_refused(monkeypatch):
    set_all(monkeypatch, SLURM | {"SLURM_NTASKS_PER_NODE": "3"})

    with (
        pytest.raises(InputError, match="processes: expected as many on every machine, got 8, and 3 on this one"),
        joined("cpu"),
    ):
        pass


def test_the_launcher_of_torchrun_is_recognised(monkeypatch):
    set_all(monkeypatch, {"TORCHELASTIC_RUN_ID": "x", "RANK": "1", "WORLD_SIZE": "2"})

    assert launcher().global_rank() == 1
    assert not is_first_process()


@pytest.mark.parametrize(
    ("raised", "message"),
    [
        (InputError("x", expected="a", got="b", remedy="c"), "x: expected a, got b; c"),
        (OSError(28, "No space left on device", "run/final"), "run/final: expected a disk to write to, got .*No space"),
    ],
)
def test_what_the_first_process_cannot_do_is_an_error_in_words(raised, message):
    def fail():
        raise raised

    with pytest.raises(InputError, match=message):
        ALONE.let_first(fail)


def test_machines_are_counted():
    assert Processes(rank=5, world=8, per_node=4).nodes == 2


def test_what_one_process_does_with_others_it_does_alone_too():
    def fails():
        raise InputError("model", expected="a model", got="none", remedy="name one")

    assert ALONE.together(lambda: 3) == 3
    with pytest.raises(InputError, match=r"^model: expected a model"):
        ALONE.together(fails)


def test_processes_that_keep_their_group_end_without_an_abort(tmp_path):
    script = tmp_path / "leaves.py"
    script.write_text(LEAVES_AT_ONCE)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "4", str(script)]
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}

    for _ in range(2):
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-2000:]
