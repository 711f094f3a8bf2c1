"""Evaluate a model on a benchmark: scores.json, rankings, embeddings and reports with pictures.

Nothing that the cache holds is embedded again: a run that was killed goes on where it
stopped, and another metric or task over the same items costs no model. Under torchrun all
processes embed. With --score a file of predictions is scored in place of a model.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from eval import choices
from eval.mteb_run import PREFIX, run_mteb
from eval.opened import add_cache, add_model, cache_of, opened
from eval.printing import explain, show, show_failures, show_metrics
from mmembed.commands import add_data_root, is_first_process
from mmembed.errors import InputError
from mmembed.evaluation.benchmark import Benchmark

HERE = Path(__file__).parent
BENCHMARKS, EXPECTED = HERE / "benchmarks", HERE / "expected"
EXAMPLE = """examples:
  python eval/run.py --model runs/demo/final --benchmark demo --output runs/demo/eval
  python eval/run.py --model runs/demo/final --benchmark demo --quick --output runs/demo/quick
  python eval/run.py --model runs/demo/final --benchmark demo --tasks composed --baselines --output runs/demo/cir
  python eval/run.py --model DIR --benchmark mmeb_v2 --modality video --output DIR
  python eval/run.py --model DIR --benchmark mmeb_v2 --miniature --output DIR
  python eval/run.py --benchmark circo --tasks val --score predictions.json
  python eval/run.py --model DIR --benchmark "mteb:MIEB(lite)" --output DIR
  torchrun --nproc-per-node 8 eval/run.py --model DIR --benchmark NAME --output DIR"""


def find_benchmark(name: str) -> Benchmark:
    """The benchmark of a path, else of that name beside this command."""
    return choices.find_benchmark(name, BENCHMARKS)


def make_parser() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_model(parser, required=False)
    parser.add_argument(
        "--benchmark", required=True, metavar="NAME|PATH", help="eval/benchmarks/NAME.yaml, a file, or mteb:NAME"
    )
    parser.add_argument("--output", type=Path, metavar="DIR", help="folder to write to; --score can do without")
    add_data_root(parser)
    parser.add_argument(
        "--leaderboard", type=Path, metavar="FILE", help="YAML of what leaderboard.json says of the model"
    )
    choices.add_choices(parser)
    choices.add_composed(parser)
    cache = add_cache(parser)
    cache.add_argument("--why-not-cached", action="store_true", help="say what is not cached and why; embed nothing")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0 is success, 1 a task that failed, 2 something in the input."""
    parser = make_parser()
    options = parser.parse_args(argv)
    choices.check_together(parser, options)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        if options.benchmark.startswith(PREFIX):
            return run_mteb(options)
        benchmark = find_benchmark(options.benchmark)
        return score(options, benchmark) if options.score else run(options, benchmark)
    except InputError as error:
        if is_first_process():
            print(error, file=sys.stderr)
        return 2


def run(options: argparse.Namespace, benchmark: Benchmark) -> int:
    """Do what the options say of a benchmark, on every process; the first one reports."""
    worded, tasks = choices.chosen(benchmark, options)
    if options.miniature and options.expected:
        raise InputError("--expected", expected="real data", got="--miniature", remedy="leave one of the two out")
    # torch and its friends take seconds: not for --help, not for a wrong name
    from mmembed.evaluation.about import about
    from mmembed.evaluation.expected import find_entry
    from mmembed.evaluation.leaderboard import read_metadata, write_leaderboard
    from mmembed.evaluation.report import write_report
    from mmembed.evaluation.retrieval_set import Sample
    from mmembed.evaluation.rewritten import read_rewritten
    from mmembed.evaluation.runner import Evaluation, evaluate_benchmark
    from mmembed.index.embedding_cache import space_name

    expected = find_entry(EXPECTED, benchmark, options.expected) if options.expected else None
    metadata = read_metadata(options.leaderboard) if options.leaderboard else None
    data_root = options.data_root / "miniature" if options.miniature else options.data_root
    evaluation = Evaluation(
        worded, data_root, options.output, options.model,
        sample=None if options.quick is None else Sample(options.quick),
        remedy=partial(choices.how_to_prepare, data_root=data_root),
        why_partial=None if options.miniature else partial(choices.why_partial, data_root=data_root),
        miniature=options.miniature, baselines=options.baselines,
        rewritten={name: read_rewritten(options.rewritten, name) for name in tasks} if options.rewritten else {},
    )  # fmt: skip
    if options.leaderboard:
        choices.check_leaderboard(evaluation, tasks)
    if options.miniature:
        choices.draw_miniatures(benchmark, tasks, data_root)
    choices.check_some_data(evaluation, tasks)
    with opened(options, [worded.tasks[name] for name in tasks]) as (model, parts, crew, processes):
        if not processes.first:
            crew.serve()
            return 0
        evaluation = replace(
            evaluation, identity=space_name(parts), media=model.settings.backbone.media,
            about=about(model, parts, processes=processes.world),
        )  # fmt: skip
        if options.why_not_cached:
            return explain(evaluation, tasks, cache_of(options), parts)
        scores = evaluate_benchmark(evaluation, crew, tasks)
    report = write_report(options.output, benchmark, data_root=data_root, media=evaluation.media, expected=expected)
    board = write_leaderboard(options.output, benchmark, metadata)
    show(scores, benchmark, expected)
    print(*(path for path in (report, board) if path), sep="\n")
    show_failures(scores)
    return 1 if scores["failed"] else 0


def score(options: argparse.Namespace, benchmark: Benchmark) -> int:
    """Score a file of predictions as the one task that the options choose; no model is opened."""
    worded, tasks = choices.chosen(benchmark, options)
    if len(tasks) != 1:
        raise InputError("--score", expected="one task", got=f"{len(tasks)}", remedy=f"add --tasks {tasks[0]}")
    from mmembed.evaluation.runner import Evaluation
    from mmembed.evaluation.scored_files import score_file

    data_root = options.data_root / "miniature" if options.miniature else options.data_root
    if options.miniature:
        choices.draw_miniatures(benchmark, tasks, data_root)
    evaluation = Evaluation(
        worded, data_root, options.output or Path(), f"predictions in {options.score}",
        remedy=partial(choices.how_to_prepare, data_root=data_root),
        why_partial=None if options.miniature else partial(choices.why_partial, data_root=data_root),
        miniature=options.miniature,
    )  # fmt: skip
    scores = score_file(evaluation, worded.tasks[tasks[0]], options.score, write=options.output is not None)
    show(scores, benchmark)
    show_metrics(scores["tasks"][tasks[0]])
    return 0


if __name__ == "__main__":
    sys.exit(main())
