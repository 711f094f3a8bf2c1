"""Evaluate a model on a benchmark: scores.json, rankings, embeddings and reports with pictures.

Nothing that the cache holds is embedded again: a run that was killed goes on where it
stopped, and another metric or task over the same items costs no model. Under torchrun all
processes embed.
"""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from eval import choices
from eval.printing import explain, show, show_failures
from mmembed.commands import add_data_root, is_first_process
from mmembed.errors import InputError
from mmembed.evaluation.benchmark import Benchmark

if TYPE_CHECKING:
    from mmembed import Embedder

HERE = Path(__file__).parent
BENCHMARKS, EXPECTED = HERE / "benchmarks", HERE / "expected"
EXAMPLE = """examples:
  python eval/run.py --model runs/demo/final --benchmark demo --output runs/demo/eval
  python eval/run.py --model runs/demo/final --benchmark demo --quick --output runs/demo/quick
  python eval/run.py --model DIR --benchmark mmeb_v2 --modality video --output DIR
  python eval/run.py --model DIR --benchmark mmeb_v2 --miniature --output DIR
  torchrun --nproc-per-node 8 eval/run.py --model DIR --benchmark NAME --output DIR"""


def find_benchmark(name: str) -> Benchmark:
    """The benchmark of a path, else of that name beside this command."""
    return choices.find_benchmark(name, BENCHMARKS)


def make_parser() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, metavar="DIR_OR_ID", help="a run's final/, or a Hub id")
    parser.add_argument("--profile", metavar="NAME", help="how a released checkpoint embeds, e.g. vlm2vec")
    parser.add_argument("--adapter", metavar="DIR_OR_ID", help="LoRA or DoRA to load onto it")
    parser.add_argument("--benchmark", required=True, metavar="NAME|PATH", help="eval/benchmarks/NAME.yaml, or a file")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder to write to")
    add_data_root(parser)
    parser.add_argument(
        "--leaderboard", type=Path, metavar="FILE", help="YAML of what leaderboard.json says of the model"
    )
    choices.add_choices(parser)
    model = parser.add_argument_group("how the model embeds")
    model.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), help="default: as the model was saved")
    model.add_argument("--max-pixels", type=int, metavar="N", help="most pixels of a picture")
    model.add_argument("--num-crops", type=int, metavar="N", help="most crops of a picture, of Phi-3.5-V alone")
    model.add_argument("--batch-tokens", type=int, metavar="N", help="of a batch (default: 16384, on a CPU 2048)")
    cache = parser.add_argument_group("what is embedded already")
    default = Path(os.environ.get("MMEMBED_CACHE") or "~/.cache/mmembed").expanduser()
    cache.add_argument(
        "--cache", type=Path, default=default, metavar="DIR", help="default: $MMEMBED_CACHE, else ~/.cache/mmembed"
    )
    cache.add_argument("--cache-gb", type=float, default=20.0, metavar="N", help="its bound (20); 0 keeps nothing")
    cache.add_argument("--why-not-cached", action="store_true", help="say what is not cached and why; embed nothing")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0 is success, 1 a task that failed, 2 something in the input."""
    options = make_parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        return run(options, find_benchmark(options.benchmark))
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
    from mmembed.evaluation.crew import Crew, check_one_model
    from mmembed.evaluation.expected import find_entry
    from mmembed.evaluation.leaderboard import read_metadata, write_leaderboard
    from mmembed.evaluation.report import write_report
    from mmembed.evaluation.retrieval_set import Sample
    from mmembed.evaluation.runner import Evaluation, evaluate_benchmark
    from mmembed.index.embedding_cache import EmbeddingCache, space_name
    from mmembed.models.identity import identity
    from mmembed.processes import joined

    expected = find_entry(EXPECTED, benchmark, options.expected) if options.expected else None
    metadata = read_metadata(options.leaderboard) if options.leaderboard else None
    data_root = options.data_root / "miniature" if options.miniature else options.data_root
    evaluation = Evaluation(
        worded, data_root, options.output, options.model,
        sample=None if options.quick is None else Sample(options.quick),
        remedy=partial(choices.how_to_prepare, data_root=data_root),
        why_partial=None if options.miniature else partial(choices.why_partial, data_root=data_root),
        miniature=options.miniature,
    )  # fmt: skip
    if options.leaderboard:
        choices.check_leaderboard(evaluation, tasks)
    if options.miniature:
        choices.draw_miniatures(benchmark, tasks, data_root)
    choices.check_some_data(evaluation, tasks)
    cache = EmbeddingCache(options.cache, max_bytes=round(options.cache_gb * 1e9)) if options.cache_gb else None
    with joined("auto") as processes:
        model = processes.together(lambda: open_model(options))
        parts = identity(model)
        check_one_model(parts, processes)
        evaluation = replace(
            evaluation, identity=space_name(parts), media=model.settings.backbone.media,
            about=about(model, parts, processes=processes.world),
        )  # fmt: skip
        if options.why_not_cached:
            return explain(evaluation, tasks, cache, parts) if processes.first else 0
        encode = partial(model.encode, batch_tokens=options.batch_tokens)
        with Crew(encode, space=cache.space(parts) if cache else None, processes=processes) as crew:
            if not processes.first:
                crew.serve()
                return 0
            scores = evaluate_benchmark(evaluation, crew, tasks)
    report = write_report(options.output, benchmark, data_root=data_root, media=evaluation.media, expected=expected)
    board = write_leaderboard(options.output, benchmark, metadata)
    show(scores, benchmark, expected)
    print(*(path for path in (report, board) if path), sep="\n")
    show_failures(scores)
    return 1 if scores["failed"] else 0


def open_model(options: argparse.Namespace) -> "Embedder":
    """The model that the options name, embedding as they say."""
    from mmembed import Embedder

    chosen = {"dtype": options.dtype, "max_pixels": options.max_pixels, "num_crops": options.num_crops}
    overrides = {name: value for name, value in chosen.items() if value is not None}
    return Embedder.from_pretrained(options.model, adapter=options.adapter, profile=options.profile, **overrides)


if __name__ == "__main__":
    sys.exit(main())
