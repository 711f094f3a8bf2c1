"""The processes of a run: what torchrun or SLURM started, joined in one group before anything is written.

One command trains on any number of them: how many there are is the launcher's business, not the recipe's.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from lightning.fabric.plugins.environments import ClusterEnvironment, SLURMEnvironment, TorchElasticEnvironment

from mmembed.errors import InputError

T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """Where this process stands among those of the run.

    Args:
        rank: its number, from 0; rank 0 writes.
        world: how many there are.
        per_node: how many run on each machine.
    """

    rank: int = 0
    world: int = 1
    per_node: int = 1

    @property
    def nodes(self) -> int:
        """Machines of the run."""
        return self.world // self.per_node

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def agree(self, value: Any) -> Any:
        """What rank 0 says, on every rank."""
        if self.world == 1:
            return value
        held = [value]
        dist.broadcast_object_list(held, src=0)
        return held[0]

    def let_first(self, act: Callable[[], None]) -> None:
        """Let rank 0 act while the others wait.

        Raises:
            InputError: what ``act`` raised, or what the disk said, on every rank: none waits for one that has left.
        """
        problem = None
        if self.first:
            try:
                act()
            except InputError as error:
                problem = error
            except OSError as error:
                where = error.filename or "the run's folder"
                remedy = "mend that and give the same command: nothing that was written is lost"
                problem = InputError(where, expected="a disk to write to", got=error, remedy=remedy)
        problem = self.agree(problem)
        if problem is not None:
            raise problem

    def together(self, act: Callable[[], T]) -> T:
        """Let every process act, and give each what its own act gave.

        Raises:
            InputError: the first one that was raised on any rank, on every rank: none waits for one that has left.
        """
        problem, made = None, None
        try:
            made = act()
        except InputError as error:
            problem = error.within(f"process {self.rank}") if self.world > 1 else error
        for found in everyone(problem) if self.world > 1 else [problem]:
            if found is not None:
                raise found
        return cast(T, made)


def everyone(mine: Any) -> list[Any]:
    """What each process says, in rank order; plain values only. A process that is alone hears itself."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return [mine]
    held: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(held, mine)
    return held


PATIENCE = timedelta(hours=1)
"""How long processes wait for each other: longer than one of them may take to write a large checkpoint."""

_LET_GO = 0.1
"""Seconds at the end of a group in which gloo's threads let go of what they carried."""

ALONE = Processes()
"""A run of one process."""


@contextmanager
def joined(accelerator: str) -> Iterator[Processes]:
    """Join the processes that torchrun or SLURM started; a plain command is a run of one.

    Args:
        accelerator: as Lightning names it; ``cpu`` keeps the processes off the GPUs.

    Raises:
        InputError: machines with different numbers of processes.
    """
    environment = launcher()
    if environment is None or environment.world_size() == 1:
        yield ALONE
        return
    found = Processes(environment.global_rank(), environment.world_size(), _per_node(environment))
    if found.nodes * found.per_node != found.world:
        raise InputError(
            "processes", expected="as many on every machine", got=f"{found.world}, and {found.per_node} on this one",
            remedy="set --nproc-per-node or --ntasks-per-node to the same number everywhere",
        )  # fmt: skip
    ours = not dist.is_initialized()
    if ours:
        _join(environment, found, on_gpu=accelerator != "cpu" and torch.cuda.is_available())
    try:
        yield found
    finally:
        if ours:
            dist.destroy_process_group()
            # FSDP2 keeps a group, and so its threads, to the end of Python. A thread that only then frees the tensor it
            # carried last aborts the process, whose work is done: https://github.com/pytorch/pytorch/issues/190489
            time.sleep(_LET_GO)


def launcher() -> ClusterEnvironment | None:
    """What started the processes: torchrun, SLURM without its own way of resuming, or nobody.

    Raises:
        InputError: SLURM was not told how many processes run on a machine.
    """
    if TorchElasticEnvironment.detect():
        return TorchElasticEnvironment()
    try:
        return SLURMEnvironment(auto_requeue=False) if SLURMEnvironment.detect() else None
    except RuntimeError as error:
        raise InputError(
            "SLURM", expected="--ntasks-per-node", got=error, remedy="give the number of processes on each machine"
        ) from error


def _per_node(environment: ClusterEnvironment) -> int:
    names = ("LOCAL_WORLD_SIZE", "SLURM_NTASKS_PER_NODE")
    return next((int(os.environ[name]) for name in names if name in os.environ), environment.world_size())


def _join(environment: ClusterEnvironment, found: Processes, *, on_gpu: bool) -> None:
    os.environ["MASTER_ADDR"] = str(environment.main_address)
    os.environ["MASTER_PORT"] = str(environment.main_port)
    if on_gpu:
        torch.cuda.set_device(environment.local_rank())
    # plain values travel by gloo, tensors on a GPU by NCCL
    backend = "cpu:gloo,cuda:nccl" if on_gpu else "gloo"
    dist.init_process_group(backend, rank=found.rank, world_size=found.world, timeout=PATIENCE)
