"""Evaluate a model and compare its scores with those expected of it (eval/expected/BENCHMARK.yaml).

What is not listed here is passed on to eval/run.py, e.g. --data-root DIR or --tasks A,B.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from eval import run as evaluation
from eval.printing import console
from mmembed.commands import is_first_process
from mmembed.errors import InputError
from mmembed.evaluation.expected import compare, find_entry
from mmembed.evaluation.means import compare_means
from mmembed.evaluation.scores import read_scores
from mmembed.evaluation.tables import comparison_table

EXAMPLE = "example: python eval/verify.py --model runs/demo/final --benchmark demo --output runs/demo/eval"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0 is everything as expected, 1 something off, missing or failed, 2 something in the input."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--benchmark", required=True, metavar="NAME|PATH", help="eval/benchmarks/NAME.yaml, or a file")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder of the evaluation")
    parser.add_argument("--model", metavar="DIR_OR_ID", help="a run's final/, or a Hub id; not used by --no-run")
    parser.add_argument("--expected", metavar="ENTRY", help="compare with this entry (default: the only one)")
    parser.add_argument("--no-run", action="store_true", help="compare the scores that the folder has already")
    parser.add_argument("--force", action="store_true", help="compare across protocols, and quick evaluations too")
    options, passed_on = parser.parse_known_args(argv)
    if options.no_run and passed_on:
        parser.error(f"--no-run evaluates nothing, and so has no {passed_on[0]}")
    if not options.no_run and options.model is None:
        parser.error("--model is required, but for --no-run")
    try:
        return verify(options, passed_on)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2


def verify(options: argparse.Namespace, passed_on: Sequence[str]) -> int:
    """Evaluate unless told not to, compare, and print the table."""
    benchmark = evaluation.find_benchmark(options.benchmark)
    expected = find_entry(evaluation.EXPECTED, benchmark, options.expected)
    if not options.no_run:
        places = ["--benchmark", options.benchmark, "--output", str(options.output), "--expected", expected.name]
        # what is wrong with the input was said, and a task that failed is among the scores
        if evaluation.main(["--model", options.model, *places, *passed_on]) == 2:
            return 2
    if not is_first_process():
        return 0
    scores = read_scores(options.output, benchmark)
    compared = compare(scores, expected, benchmark, force=options.force)
    means = compare_means(scores, compared, expected, benchmark)
    console().print(comparison_table(scores, list(compared.values()), expected, benchmark, means=means))
    verdicts = [comparison.verdict for comparison in (*compared.values(), *means)]
    as_expected = "ok" in verdicts and set(verdicts) <= {"ok", "differs"}
    return 0 if as_expected and not scores["failed"] else 1


if __name__ == "__main__":
    sys.exit(main())
