"""Global batches by step number, prepared in worker processes: the same for any number of workers."""

from collections.abc import Iterator
from typing import Any, Generic, Protocol, TypeVar

from mmembed.data.mixture import LostTableError, Mixture
from mmembed.data.quarantine import BadRow, check_share
from mmembed.data.sampler import Row
from mmembed.errors import InputError
from mmembed.items import Pair
from mmembed.workers import in_order

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


class StepDataset(Generic[P, T]):
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


class StepLoader(Generic[T]):
    """The batches of steps in order, prepared in workers ahead of the model.

    It has no length: Lightning would take that of the rest of a stage for that of the whole, and stop early.

    Args:
        dataset: prepares a step.
        steps: which ones.
        num_workers: processes that prepare; 0 prepares each step when it is asked for.
        pin: whether what workers prepare is put into pinned memory, for a GPU.
    """

    def __init__(self, dataset: StepDataset[Any, T], steps: range, num_workers: int, pin: bool = False) -> None:
        self.dataset, self.steps, self.num_workers, self.pin = dataset, steps, num_workers, pin

    def __iter__(self) -> Iterator[T]:
        with in_order(self.dataset.__getitem__, self.steps, self.num_workers, pin=self.pin) as batches:
            yield from batches


def step_loader(
    dataset: StepDataset[P, T], first_step: int, last_step: int, num_workers: int = 0, *, pin: bool = False
) -> StepLoader[T]:
    """Batches of the steps from ``first_step`` up to, but not including, ``last_step``, in order.

    Iterating leaves the global random state alone, whatever the number of workers.
    """
    return StepLoader(dataset, range(first_step, last_step), num_workers, pin)
