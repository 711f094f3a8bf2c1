"""Lay several evaluations of one benchmark side by side: a table, and a page with the same queries for all."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from rich.console import Console

from eval import choices
from mmembed.commands import add_data_root
from mmembed.errors import InputError
from mmembed.evaluation.side_by_side import read_runs, runs_table, shared_tasks, write_page
from mmembed.progress import PAGE_WIDTH

BENCHMARKS = Path(__file__).parent / "benchmarks"
EXAMPLE = "example: python eval/side_by_side.py text=runs/a roi=runs/b --benchmark demo --output runs/both.html"


def named_runs(arguments: Sequence[str]) -> dict[str, Path]:
    """``NAME=DIR`` or just ``DIR`` each, which is then called by its folder.

    Raises:
        InputError: two of one name.
    """
    found: dict[str, Path] = {}
    for argument in arguments:
        name, sign, folder = argument.partition("=")
        path = Path(folder if sign else argument)
        called = name if sign else path.name
        if called in found:
            raise InputError(called, expected="a name for each run", got="two of it", remedy="write NAME=DIR")
        found[called] = path
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0 is success, 2 something in the input."""
    parser = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLE)
    parser.add_argument("runs", nargs="+", metavar="[NAME=]DIR", help="output folders of eval/run.py")
    parser.add_argument("--benchmark", required=True, metavar="NAME|PATH", help="eval/benchmarks/NAME.yaml, or a file")
    parser.add_argument("--output", type=Path, metavar="FILE", help="the page to write; only the table without it")
    add_data_root(parser)
    options = parser.parse_args(argv)
    try:
        benchmark = choices.find_benchmark(options.benchmark, BENCHMARKS)
        runs = read_runs(named_runs(options.runs), benchmark)
        console = Console(width=None if sys.stdout.isatty() else PAGE_WIDTH)
        for task in shared_tasks(runs):
            console.print(runs_table(runs, task))
        if options.output:
            print(write_page(options.output, runs, benchmark, data_root=options.data_root))
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
