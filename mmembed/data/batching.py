"""Global batches by step number, prepared in worker processes: the same for any number of workers."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from mmembed.data.mixture import Mixture
from mmembed.errors import InputError
from mmembed.items import Pair

T = TypeVar("T")


@dataclass(frozen=True)
class _Failure:
    """An InputError on its way out of a worker, where exceptions become text."""

    kind: type[InputError]
    fields: dict[str, str]


class StepDataset(Dataset[T], Generic[T]):
    """The prepared global batch of any step.

    Args:
        mixture: gives the pairs of a step.
        prepare: makes them into what the model takes, from the step and its pairs; picklable.
    """

    def __init__(self, mixture: Mixture, prepare: Callable[[int, list[Pair]], T]) -> None:
        self.mixture = mixture
        self.prepare = prepare

    def __getitem__(self, step: int) -> T:
        return self.prepare(step, self.mixture.pairs(step))


class StepLoader(DataLoader[Any]):
    """A DataLoader over steps in order, which raises the InputError of a worker as it was."""

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # torch asks for its own iterator class
        for batch in super().__iter__():
            if isinstance(batch, _Failure):
                raise batch.kind(**batch.fields)
            yield batch


def step_loader(dataset: StepDataset[T], first_step: int, last_step: int, num_workers: int = 0) -> StepLoader:
    """Batches of the steps from ``first_step`` up to, but not including, ``last_step``, in order.

    Iterating leaves the global random state alone, whatever the number of workers.
    """
    return StepLoader(
        _Guarded(dataset),
        batch_size=None,
        sampler=range(first_step, last_step),
        num_workers=num_workers,
        collate_fn=_as_it_is,
        generator=torch.Generator().manual_seed(0),
    )


class _Guarded(Dataset[Any]):
    """A dataset that returns an InputError where it would raise one."""

    def __init__(self, dataset: StepDataset[Any]) -> None:
        self.dataset = dataset

    def __getitem__(self, step: int) -> Any:
        try:
            return self.dataset[step]
        except InputError as error:
            return _Failure(type(error), dict(vars(error)))


def _as_it_is(batch: Any) -> Any:
    return batch
