"""Evaluate a model on a benchmark: scores.json, rankings, embeddings and a report with pictures."""

import argparse
import logging
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

import mmembed
from mmembed.commands import add_data_root
from mmembed.errors import InputError, nearest
from mmembed.evaluation.benchmark import Benchmark, read_benchmark
from mmembed.evaluation.evaluate import evaluate_benchmark
from mmembed.evaluation.report import table_text, write_report
from mmembed.progress import PAGE_WIDTH

BENCHMARKS = Path(__file__).parent / "benchmarks"
EXAMPLE = "example: python eval/run.py --model runs/demo/final --benchmark demo --output runs/demo/eval"


def find_benchmark(name: str) -> Benchmark:
    """The benchmark of a path, else of that name beside this command."""
    path = Path(name)
    if path.suffix == ".yaml" or path.exists():
        return read_benchmark(path)
    known = {file.stem: file for file in BENCHMARKS.glob("*.yaml")}
    if name not in known:
        raise InputError("--benchmark", expected="a path or a known name", got=f"'{name}'", remedy=nearest(name, known))
    return read_benchmark(known[name])


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0 is success, 2 something in the input."""
    parser = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLE)
    parser.add_argument("--model", required=True, metavar="DIR_OR_ID", help="a run's final/, or a Hub id")
    parser.add_argument("--profile", metavar="NAME", help="how a released checkpoint embeds, e.g. vlm2vec")
    parser.add_argument("--benchmark", required=True, metavar="NAME|PATH", help="eval/benchmarks/NAME.yaml, or a file")
    parser.add_argument("--tasks", metavar="A,B", help="only these tasks; the scores are then marked partial")
    add_data_root(parser)
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder to write to")
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        benchmark = find_benchmark(options.benchmark)
        chosen = benchmark.only(options.tasks.split(",") if options.tasks else list(benchmark.tasks))
        model = mmembed.Embedder.from_pretrained(options.model, profile=options.profile)
        encode = partial(model.encode, progress=True)
        common = {
            "data_root": options.data_root,
            "output": options.output,
            "media": model.settings.backbone.media,
        }
        scores = evaluate_benchmark(benchmark, encode, model=options.model, tasks=list(chosen.tasks), **common)
        report = write_report(benchmark=benchmark, **common)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    show(scores, benchmark)
    print(report)
    return 0


def show(scores: Mapping[str, Any], benchmark: Benchmark) -> None:
    """Print the table of scores; a log has no width of its own."""
    Console(width=None if sys.stdout.isatty() else PAGE_WIDTH).print(table_text(scores, benchmark))


if __name__ == "__main__":
    sys.exit(main())
