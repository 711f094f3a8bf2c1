"""Compare two evaluations query by query: what b changes over a, with intervals and p values."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from mmembed.errors import InputError
from mmembed.evaluation.compare import changes_table, compare_runs, remarks
from mmembed.progress import PAGE_WIDTH

EXAMPLE = "example: python eval/compare.py runs/demo/eval runs/other/eval --metric hit@1 --tasks question"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0 is success, 2 something in the input, protocols that differ among it."""
    parser = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLE)
    parser.add_argument("a", type=Path, metavar="A", help="output folder of eval/run.py")
    parser.add_argument("b", type=Path, metavar="B", help="output folder of another run on the same benchmark")
    parser.add_argument("--metric", metavar="METRIC@K", help="what to compare (default: the metric of each task)")
    parser.add_argument("--tasks", metavar="TASK,TASK", help="only these tasks")
    parser.add_argument("--force", action="store_true", help="compare tasks of different protocols too")
    options = parser.parse_args(argv)
    try:
        tasks = options.tasks.split(",") if options.tasks else None
        compared = compare_runs(options.a, options.b, metric=options.metric, tasks=tasks, force=options.force)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"a: {options.a}\nb: {options.b}")
    Console(width=None if sys.stdout.isatty() else PAGE_WIDTH).print(changes_table(compared))
    for remark in remarks(compared):
        print(remark)
    return 0


if __name__ == "__main__":
    sys.exit(main())
