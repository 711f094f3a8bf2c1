"""Tasks of mteb by the names of its benchmarks and tasks, and what of them a model reads."""

from collections.abc import Sequence

import mteb
from mteb.abstasks import AbsTask

from mmembed.errors import InputError, nearest
from mmembed.serve.mteb.encoder import MtebEncoder

MOCK = "mock"
"""The benchmark of mteb's drawn tasks, which need no network and say nothing of a model."""


def find_tasks(name: str) -> list[AbsTask]:
    """The tasks of a benchmark of mteb, or the one task of this name; ``mock`` are the drawn ones.

    Raises:
        InputError: neither; the nearest name is given.
    """
    if name == MOCK:
        from mteb.mocks import ALL_MOCK_TASK_TEST_GRID

        # mteb lists one of them twice
        return list({task.metadata.name: task for task in ALL_MOCK_TASK_TEST_GRID}.values())
    benchmarks = {known for each in mteb.get_benchmarks() for known in (each.name, *(each.aliases or ()))}
    if name in benchmarks:
        return list(mteb.get_benchmark(name).tasks)
    try:
        return [mteb.get_task(name)]
    except KeyError:
        tasks = [task.metadata.name for task in mteb.get_tasks(exclude_superseded=False)]
        raise InputError(
            f"mteb:{name}", expected="a benchmark or task of mteb, or mock", got=f"'{name}'",
            remedy=_near(name, [*benchmarks, *tasks, MOCK]),
        ) from None  # fmt: skip


def choose_tasks(tasks: Sequence[AbsTask], names: Sequence[str] | None) -> list[AbsTask]:
    """Those of some tasks that are named; None is all.

    Raises:
        InputError: a name that is none of them.
    """
    by_name = {task.metadata.name: task for task in tasks}
    for name in names or ():
        if name not in by_name:
            raise InputError(
                "tasks", expected="a task of the benchmark", got=f"'{name}'", remedy=_near(name, list(by_name))
            )
    return [task for task in tasks if names is None or task.metadata.name in names]


def reads(encoder: MtebEncoder, task: AbsTask) -> str | None:
    """What of a task its model does not read, in words; None where it reads all."""
    missing = [name for name in task.metadata.modalities if name not in encoder.mteb_model_meta.modalities]  # type: ignore[union-attr]
    return f"it has {' and '.join(missing)}, which this model does not read" if missing else None


def _near(name: str, known: Sequence[str]) -> str:
    """The nearest name; of thousands, the list would help nobody."""
    said = nearest(name, known)
    return "mteb.get_benchmarks() and mteb.get_tasks() list them" if said.startswith("known:") else said
