"""What of a benchmark is evaluated: options of eval/run.py, and the rows that they choose."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mmembed.errors import InputError, nearest
from mmembed.evaluation.benchmark import Benchmark, Task, read_benchmark

if TYPE_CHECKING:
    from mmembed.evaluation.runner import Evaluation

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "data_prep" / "sources"


def find_benchmark(name: str, folder: Path) -> Benchmark:
    """The benchmark of a path, else of that name in a folder."""
    path = Path(name)
    if path.suffix == ".yaml" or path.exists():
        return read_benchmark(path)
    known = {file.stem: file for file in folder.glob("*.yaml")}
    if name not in known:
        raise InputError("--benchmark", expected="a path or a known name", got=f"'{name}'", remedy=nearest(name, known))
    return read_benchmark(known[name])


def add_choices(parser: argparse.ArgumentParser) -> None:
    """The options that choose rows and their wording."""
    what = parser.add_argument_group("what is scored")
    what.add_argument("--tasks", metavar="A,B", help="only these tasks; the scores are then marked partial")
    what.add_argument(
        "--modality", metavar="NAME", help="only tasks of it, e.g. image, video or visdoc; marked partial"
    )
    what.add_argument(
        "--prompts", metavar="VERSION", help="this version of the prompts where a row has it, else its own"
    )
    what.add_argument(
        "--ndcg-fault", type=int, metavar="SEED", help="permute grades as published under this PYTHONHASHSEED"
    )
    what.add_argument(
        "--quick", type=int, nargs="?", const=100, metavar="N",
        help="only N queries a task (100) with all their own candidates, else 900 other targets; always the same",
    )  # fmt: skip
    what.add_argument("--expected", metavar="ENTRY", help="compare with this entry of eval/expected/BENCHMARK.yaml")


def chosen(benchmark: Benchmark, options: argparse.Namespace) -> tuple[Benchmark, list[str]]:
    """The benchmark as the options word it, and the names of the tasks that they choose."""
    if options.prompts is not None:
        benchmark = benchmark.worded(options.prompts)
    if options.ndcg_fault is not None:
        benchmark = benchmark.with_ndcg_fault(options.ndcg_fault)
    part = benchmark if options.modality is None else benchmark.of_modality(options.modality)
    part = part if options.tasks is None else part.only(options.tasks.split(","))
    return benchmark, list(part.tasks)


def how_to_prepare(task: Task, data_root: Path) -> str:
    """What to do where the data of a task are not there."""
    source = Path(task.data).parts[0]
    if (SOURCES / f"{source}.yaml").exists():
        return f"run python data_prep/prepare.py {task.data} --data-root {data_root}"
    return "prepare what the row names, or check --data-root"


def check_some_data(evaluation: "Evaluation", tasks: Sequence[str]) -> None:
    """Refuse to open a model where the data of no task are there; a task whose data miss beside others fails alone."""
    benchmark = evaluation.benchmark
    errors = [evaluation.missing(benchmark.tasks[name]) for name in tasks]
    missing = [error for error in errors if error is not None]
    if len(missing) < len(errors):
        return
    if len(missing) == 1:
        raise missing[0]
    remedies = dict.fromkeys(error.remedy for error in missing)
    if list(tasks) == list(benchmark.tasks) and (SOURCES / f"{benchmark.name}.yaml").exists():
        remedies = {f"run python data_prep/prepare.py {benchmark.name} --data-root {evaluation.data_root}": None}
    raise InputError(
        evaluation.data_root, expected="the data of some of the tasks", got=f"none of {len(errors)}",
        remedy="\n  ".join(remedies),
    )  # fmt: skip
