"""Global batches by step number, prepared in worker processes: the same for any number of workers."""

import atexit
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from mmembed.data.mixture import LostTableError, Mixture
from mmembed.data.quarantine import BadRow, check_share
from mmembed.data.sampler import Row
from mmembed.errors import InputError
from mmembed.items import Pair

P = TypeVar("P")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Preparer(Protocol[P, T_co]):
    """Makes the pairs of a step into what the model takes, pair by pair; picklable."""

    @property
    def by_step(self) -> bool:
        """Whether what a pair becomes depends on the step, and so whether it can be used."""
        ...

    def prepare(self, pair: Pair, step: int) -> P:
        """One pair, decoded and rendered for a step; an InputError says that it cannot be used."""
        ...

    def assemble(self, step: int, prepared: list[P], bad: tuple[BadRow, ...]) -> T_co:
        """The batch of a step from its prepared pairs, in order, and the rows that were replaced."""
        ...


@dataclass(frozen=True)
class _Failure:
    """An InputError on its way out of a worker, where exceptions become text."""

    kind: type[InputError]
    fields: dict[str, str]


class StepDataset(Dataset[T], Generic[P, T]):
    """What one rank prepares of the global batch of any step.

    A row that cannot be used is replaced by the next one of its table, the first after the last; so every rank and any
    number of workers come to the same rows. The batch is told which rows were bad.

    Args:
        mixture: gives the rows of a step.
        preparer: makes them into what the model takes.
        rank: takes rows ``rank, rank + world, ...`` of the global batch.
        world: number of ranks.
    """

    def __init__(self, mixture: Mixture, preparer: Preparer[P, T], rank: int = 0, world: int = 1) -> None:
        self.mixture = mixture
        self.preparer = preparer
        self.rank = rank
        self.world = world
        self._bad: dict[Row, BadRow] = {}

    def __getitem__(self, step: int) -> T:
        """The batch of a step.

        Raises:
            InputError: one after the other, more rows of a source are bad than may be; or its table is gone.
        """
        bad: dict[Row, BadRow] = {}
        prepared = [self._prepare(row, step, bad) for row in self.mixture.rows(step)[self.rank :: self.world]]
        return self.preparer.assemble(step, prepared, tuple(bad.values()))

    def _prepare(self, row: Row, step: int, met: dict[Row, BadRow]) -> P:
        """The row, or the next one that can be used; the bad ones before it are added to ``met``."""
        size, share = self.mixture.sampler.sizes[row.source], self.mixture.sampler.sampling.max_bad
        passed: list[BadRow] = []
        while isinstance(found := self._try(row, step), BadRow):
            met[row] = found
            passed.append(found)
            # these alone are too many, whatever other workers find: do not walk through the whole table
            check_share(passed, size, share)
            row = Row(row.source, (row.row + 1) % size)
        return found

    def _try(self, row: Row, step: int) -> P | BadRow:
        if row in self._bad:
            return self._bad[row]
        try:
            return self.preparer.prepare(self.mixture.pair(row), step)
        except LostTableError:
            raise
        except InputError as error:
            bad = BadRow(row.source, row.row, str(error))
            if not self.preparer.by_step:
                # else a batch would depend on which steps this worker was given before
                self._bad[row] = bad
            return bad


class StepLoader(DataLoader[Any]):
    """A DataLoader over steps in order, which raises the InputError of a worker as it was."""

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # torch asks for its own iterator class
        batches = super().__iter__()
        with _ended(batches):
            for batch in batches:
                if isinstance(batch, _Failure):
                    raise batch.kind(**batch.fields)
                yield batch


@contextmanager
def _ended(batches: Any) -> Iterator[None]:
    """End the workers of a loader's iterator with the block, or when Python exits inside it.

    At its exit Python sends SIGTERM to its children and waits for them, for ever if they ignore it: they must be told
    before.
    """
    # an iterator without workers has nothing to end
    end = getattr(batches, "_shutdown_workers", lambda: None)
    atexit.register(end)
    try:
        yield
    finally:
        atexit.unregister(end)
        end()


def step_loader(dataset: StepDataset[P, T], first_step: int, last_step: int, num_workers: int = 0) -> StepLoader:
    """Batches of the steps from ``first_step`` up to, but not including, ``last_step``, in order.

    Iterating leaves the global random state alone, whatever the number of workers.
    """
    return StepLoader(
        _Guarded(dataset),
        batch_size=None,
        sampler=range(first_step, last_step),
        num_workers=num_workers,
        collate_fn=_as_it_is,
        worker_init_fn=_outlive_signals,
        generator=torch.Generator().manual_seed(0),
    )


class _Guarded(Dataset[Any]):
    """A dataset that returns an InputError where it would raise one."""

    def __init__(self, dataset: StepDataset[Any, Any]) -> None:
        self.dataset = dataset

    def __getitem__(self, step: int) -> Any:
        try:
            return self.dataset[step]
        except InputError as error:
            return _Failure(type(error), dict(vars(error)))


def _outlive_signals(worker: int) -> None:
    """Leave it to the main process what a signal to all of them means.

    It may finish its step and write a checkpoint, for which it needs the workers. They end when it does.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _as_it_is(batch: Any) -> Any:
    return batch
