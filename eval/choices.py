"""What of a benchmark is evaluated: options of eval/run.py, and the rows that they choose."""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from data_prep.commands import preparing
from data_prep.engine.manifest import why_not_whole
from data_prep.source import SOURCES
from mmembed.errors import InputError, nearest
from mmembed.evaluation.benchmark import Benchmark, Task, read_benchmark

if TYPE_CHECKING:
    from mmembed.evaluation.runner import Evaluation


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
    what.add_argument(
        "--miniature", action="store_true",
        help="try it on drawn miniatures of the data, below DATA_ROOT/miniature; marked, and compared with nothing",
    )  # fmt: skip
    what.add_argument("--expected", metavar="ENTRY", help="compare with this entry of eval/expected/BENCHMARK.yaml")


def add_composed(parser: argparse.ArgumentParser) -> None:
    """The options for composed queries, and for files of predictions."""
    composed = parser.add_argument_group("composed queries, and predictions of others")
    composed.add_argument(
        "--baselines", action="store_true", help="score the pictures alone, the words alone and their sum beside them"
    )
    composed.add_argument(
        "--rewritten", type=Path, metavar="DIR",
        help="ask with the texts of DIR/TASK.jsonl, which data_prep/rewrite_queries.py writes (CIReVL)",
    )  # fmt: skip
    composed.add_argument(
        "--score", type=Path, metavar="FILE",
        help='score this file of CIRR, of CIRCO, or of {"query id": ["target id", ...]}; needs no model',
    )  # fmt: skip


def check_together(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Refuse options that do not go together, as the parser does."""
    if options.score is None:
        for name in ("model", "output"):
            if getattr(options, name) is None:
                parser.error(f"--{name} is required, but for --score")
        if options.rewritten and (options.baselines or options.why_not_cached):
            parser.error("--rewritten asks with texts alone, and so has no --baselines and no --why-not-cached")
        return
    unused = ("model", "baselines", "rewritten", "quick", "expected", "leaderboard", "why_not_cached", "ndcg_fault")
    for name in unused:
        if getattr(options, name) not in (None, False):
            parser.error(f"--score embeds nothing, and so has no --{name.replace('_', '-')}")


def chosen(benchmark: Benchmark, options: argparse.Namespace) -> tuple[Benchmark, list[str]]:
    """The benchmark as the options word it, and the names of the tasks that they choose.

    Raises:
        InputError: names of what there is not, or a version of prompts or a fault that no chosen task has.
    """
    part = benchmark if options.modality is None else benchmark.of_modality(options.modality)
    if options.tasks is not None:
        names = list(benchmark.only(options.tasks.split(",")).tasks)
        if others := [name for name in names if name not in part.tasks]:
            raise InputError(
                f"--modality {options.modality} --tasks", expected=f"tasks on {options.modality}",
                got=", ".join(f"{name}, which is on {benchmark.tasks[name].modality or 'none'}" for name in others),
                remedy="leave them out, or the modality",
            )  # fmt: skip
        part = part.only(names)
    if options.prompts is not None:
        part = part.worded(options.prompts)
    if options.ndcg_fault is not None:
        part = part.with_ndcg_fault(options.ndcg_fault)
    return replace(part, tasks=benchmark.tasks | part.tasks), list(part.tasks)


def how_to_prepare(task: Task, data_root: Path) -> str:
    """What to do where the data of a task are not there."""
    return "\n  ".join(["run", *preparing([task.data], data_root)])


def why_partial(task: Task, data_root: Path) -> str | None:
    """Why the prepared data of a task are not all of it; None where they are, or were not prepared here."""
    return why_not_whole(data_root, task.data)


def draw_miniatures(benchmark: Benchmark, tasks: Sequence[str], data_root: Path) -> None:
    """Draw and prepare the miniatures of the tasks' sources below ``data_root``, unless they lie there.

    Whole sources: their sets share archives, which a part of them would be drawn differently for.

    Raises:
        InputError: a task whose data are of no source.
    """
    # takes a second, which only miniatures need
    from data_prep.miniatures.draw import prepare_miniature

    sources = {Path(benchmark.tasks[name].data).parts[0]: benchmark.tasks[name].data for name in tasks}
    for source, data in sources.items():
        if not (SOURCES / f"{source}.yaml").is_file():
            raise InputError("--miniature", expected="data of a source", got=data, remedy="leave its tasks out")
    for source in sources:
        prepare_miniature(source, data_root)


def check_leaderboard(evaluation: "Evaluation", tasks: Sequence[str]) -> None:
    """Refuse what ``leaderboard.json`` is to say of a model where none will be written.

    Raises:
        InputError: says why there will be none.
    """
    rows = evaluation.benchmark.tasks
    partial = [name for name in tasks if evaluation.part(rows[name]) is not None]
    why = {
        "--quick": evaluation.sample is not None,
        "--miniature": evaluation.miniature,
        f"parts of the data of {', '.join(partial)}": bool(partial),
        f"{evaluation.benchmark.name}, whose rows have no modality": not any(row.modality for row in rows.values()),
    }
    for got in (words for words, holds in why.items() if holds):
        raise InputError(
            "--leaderboard", expected="an evaluation that writes leaderboard.json", got=got, remedy="leave it out"
        )


def check_some_data(evaluation: "Evaluation", tasks: Sequence[str]) -> None:
    """Refuse to open a model where the data of no task are there; a task whose data miss beside others fails alone.

    Raises:
        InputError: names the command that makes them all.
    """
    rows = [evaluation.benchmark.tasks[name] for name in tasks]
    missing = [error for error in map(evaluation.missing, rows) if error is not None]
    if len(missing) < len(rows):
        return
    if len(missing) == 1:
        raise missing[0]
    lines = preparing([row.data for row in rows], evaluation.data_root)
    raise InputError(
        evaluation.data_root, expected="the data of some of the tasks", got=f"none of {len(rows)}",
        remedy="\n  ".join(["run", *lines]),
    )  # fmt: skip
