"""What the picture and the words of composed queries score together, over the share of the words, with a curve.

Both halves are embedded once, out of the cache that eval/run.py --baselines fills; no share costs a
model. The best share on the data it was chosen on is optimistic: choose on one set, report on another.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from eval import choices
from eval.opened import Opened, add_cache, add_model, opened
from eval.printing import console
from mmembed.commands import add_data_root, is_first_process
from mmembed.errors import InputError
from mmembed.evaluation.benchmark import Benchmark, Task

if TYPE_CHECKING:
    from mmembed.evaluation.retrieval_set import RetrievalSet
    from mmembed.evaluation.runner import Evaluation
    from mmembed.evaluation.sweep import Sweep

BENCHMARKS = Path(__file__).parent / "benchmarks"
STROKES = (("#2a6f97", "-"), ("#b9973a", "--"))
EXAMPLE = """examples:
  python eval/sweep.py --model runs/demo/final --benchmark demo --tasks composed --output runs/demo/sweep
  python eval/sweep.py --model DIR --benchmark cirr --tasks val --alpha 0.5:1:0.05 --output DIR"""


def make_parser() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_model(parser)
    parser.add_argument("--benchmark", required=True, metavar="NAME|PATH", help="eval/benchmarks/NAME.yaml, or a file")
    parser.add_argument("--tasks", metavar="A,B", help="only these tasks; others than of composed queries are refused")
    parser.add_argument("--alpha", default="0:1:0.1", metavar="A:B:STEP|A,B", help="shares of the words (0:1:0.1)")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="for sweep.json and sweep.png")
    add_data_root(parser)
    add_cache(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0 is success, 2 something in the input."""
    options = make_parser().parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        benchmark = choices.find_benchmark(options.benchmark, BENCHMARKS)
        part = benchmark if options.tasks is None else benchmark.only(options.tasks.split(","))
        return sweep(options, part)
    except InputError as error:
        if is_first_process():
            print(error, file=sys.stderr)
        return 2


def sweep(options: argparse.Namespace, benchmark: Benchmark) -> int:
    """Embed the halves on every process; the first one scores them at every share, prints and writes."""
    from mmembed.evaluation.runner import Evaluation
    from mmembed.evaluation.sweep import shares, sweep_table
    from mmembed.files import write_json
    from mmembed.index.embedding_cache import space_name
    from mmembed.progress import track

    alphas = shares(options.alpha)
    remedy = partial(choices.how_to_prepare, data_root=options.data_root)
    evaluation = Evaluation(benchmark, options.data_root, options.output, options.model, remedy=remedy)
    sets = {task.name: read(evaluation, task) for task in benchmark.tasks.values()}
    with opened(options, benchmark.tasks.values()) as model:
        if not model.processes.first:
            model.crew.serve()
            return 0
        rows = track(benchmark.tasks.values(), "tasks")
        found = [sweep_row(model, task, sets[task.name], alphas) for task in rows]
    for one in found:
        console().print(sweep_table(one))
        if (part := choices.why_partial(benchmark.tasks[one.task], options.data_root)) is not None:
            print(f"{one.task}: scored on a part of the data: {part}", file=sys.stderr)
        for rule in one.curves:
            best = one.best(rule)
            print(f"{one.task}: best {rule}: {100 * best.score:.1f} at alpha {best.alpha:g}")
    write_json(
        options.output / "sweep.json",
        {
            "benchmark": benchmark.name, "model": options.model, "identity": space_name(model.parts),
            "tasks": {one.task: one.row() for one in found},
        },
    )  # fmt: skip
    draw(options.output / "sweep.png", found)
    print(options.output / "sweep.json", options.output / "sweep.png", sep="\n")
    return 0


def read(evaluation: "Evaluation", task: Task) -> "RetrievalSet":
    """The data of a task of composed queries.

    Raises:
        InputError: data that are not there, or queries that are not a picture and words.
    """
    from mmembed.evaluation.baselines import is_composed

    found = evaluation.read(task)
    if not is_composed(found):
        raise InputError(
            task.name, expected="composed queries, each a picture and words", got="others", remedy="name --tasks"
        )
    return found


def sweep_row(model: Opened, task: Task, retrieval_set: "RetrievalSet", alphas: Sequence[float]) -> "Sweep":
    """Embed a task, and score it at every share."""
    from mmembed.evaluation.baselines import embed_parts
    from mmembed.evaluation.protocol import protocol_id, protocol_of
    from mmembed.evaluation.sweep import sweep_task
    from mmembed.evaluation.vectors import embed_targets

    media = model.model.settings.backbone.media
    targets = embed_targets(task, retrieval_set, model.crew, media)
    parts = embed_parts(task, retrieval_set, model.crew, media)
    named = protocol_id(protocol_of(task, retrieval_set))
    return sweep_task(task, retrieval_set, parts, targets, alphas, named)


def draw(path: Path, sweeps: Sequence["Sweep"]) -> None:
    """Write the curves as a PNG, one panel a task.

    Raises:
        InputError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError(
            "sweep.png",
            expected="matplotlib",
            got=str(error),
            remedy='pip install "mmembed[plots]", or read sweep.json',
        ) from error
    from mmembed.evaluation.sweep import RULES
    from mmembed.files import whole_file

    figure = Figure(figsize=(5.2 * len(sweeps), 3.8), layout="constrained", dpi=150)
    panels = figure.subplots(1, len(sweeps), squeeze=False)[0]
    for panel, one in zip(panels, sweeps, strict=True):
        for (rule, points), (colour, line) in zip(one.curves.items(), STROKES, strict=True):
            best = one.best(rule)
            alphas, scores = [point.alpha for point in points], [100 * point.score for point in points]
            label = f"{RULES[rule]}: {100 * best.score:.1f} at {best.alpha:g}"
            panel.plot(alphas, scores, color=colour, linestyle=line, marker=".", label=label)
            panel.plot([best.alpha], [100 * best.score], "o", color=colour, markersize=9, fillstyle="none")
        panel.set_title(f"{one.task}  ({one.protocol_id})", fontsize=10)
        panel.set_xlabel("alpha: 0 picture alone, 1 words alone")
        panel.set_ylabel(f"{one.metric}, percent")
        panel.grid(color="#e3e0d9")
        panel.spines[["top", "right"]].set_visible(False)
        # below the panel: above it the curves may be anywhere
        panel.legend(frameon=False, fontsize=9, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)
    with whole_file(path) as part:
        figure.savefig(part, format="png")


if __name__ == "__main__":
    sys.exit(main())
