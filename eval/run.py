"""Evaluate a model on a benchmark: scores.json, rankings, embeddings and reports with pictures.

Nothing that the cache holds is embedded again: a run that was killed goes on where it
stopped, and another metric or task over the same items costs no model. Under torchrun all
processes embed.
"""

import argparse
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from mmembed.commands import add_data_root, is_first_process
from mmembed.errors import InputError, nearest
from mmembed.evaluation.benchmark import Benchmark, read_benchmark
from mmembed.progress import PAGE_WIDTH

if TYPE_CHECKING:
    from mmembed import Embedder
    from mmembed.evaluation.expected import Expected
    from mmembed.evaluation.runner import Evaluation
    from mmembed.index.embedding_cache import EmbeddingCache

HERE = Path(__file__).parent
BENCHMARKS, EXPECTED = HERE / "benchmarks", HERE / "expected"
EXAMPLE = """examples:
  python eval/run.py --model runs/demo/final --benchmark demo --output runs/demo/eval
  python eval/run.py --model runs/demo/final --benchmark demo --quick --output runs/demo/quick
  torchrun --nproc-per-node 8 eval/run.py --model DIR --benchmark NAME --output DIR"""


def find_benchmark(name: str) -> Benchmark:
    """The benchmark of a path, else of that name beside this command."""
    path = Path(name)
    if path.suffix == ".yaml" or path.exists():
        return read_benchmark(path)
    known = {file.stem: file for file in BENCHMARKS.glob("*.yaml")}
    if name not in known:
        raise InputError("--benchmark", expected="a path or a known name", got=f"'{name}'", remedy=nearest(name, known))
    return read_benchmark(known[name])


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
    what = parser.add_argument_group("what is scored")
    what.add_argument("--tasks", metavar="A,B", help="only these tasks; the scores are then marked partial")
    what.add_argument(
        "--quick", type=int, nargs="?", const=100, metavar="N", help="only N queries a task (100), always the same"
    )
    what.add_argument("--expected", metavar="ENTRY", help="compare with this entry of eval/expected/BENCHMARK.yaml")
    model = parser.add_argument_group("how the model embeds")
    model.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), help="default: as the model was saved")
    model.add_argument("--max-pixels", type=int, metavar="N", help="most pixels of a picture")
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
        benchmark = find_benchmark(options.benchmark)
        tasks = list(benchmark.only(options.tasks.split(",")).tasks if options.tasks else benchmark.tasks)
        return run(options, benchmark, tasks)
    except InputError as error:
        if is_first_process():
            print(error, file=sys.stderr)
        return 2


def run(options: argparse.Namespace, benchmark: Benchmark, tasks: Sequence[str]) -> int:
    """Do what the options say, on every process; the first one reports."""
    # torch and its friends take seconds: not for --help, not for a wrong name
    from mmembed.evaluation.crew import Crew, check_one_model
    from mmembed.evaluation.expected import find_entry
    from mmembed.evaluation.report import write_report
    from mmembed.evaluation.retrieval_set import Sample
    from mmembed.evaluation.runner import Evaluation, evaluate_benchmark
    from mmembed.index.embedding_cache import EmbeddingCache, space_name
    from mmembed.models.identity import identity
    from mmembed.processes import joined

    expected = find_entry(EXPECTED, benchmark, options.expected) if options.expected else None
    sample = None if options.quick is None else Sample(options.quick)
    cache = EmbeddingCache(options.cache, max_bytes=round(options.cache_gb * 1e9)) if options.cache_gb else None
    with joined("auto") as processes:
        model = processes.together(lambda: open_model(options))
        parts = identity(model)
        check_one_model(parts, processes)
        media = model.settings.backbone.media
        evaluation = Evaluation(
            benchmark, options.data_root, options.output, options.model,
            identity=space_name(parts), sample=sample, media=media,
        )  # fmt: skip
        if options.why_not_cached:
            return explain(evaluation, tasks, cache, parts) if processes.first else 0
        encode = partial(model.encode, batch_tokens=options.batch_tokens)
        with Crew(encode, space=cache.space(parts) if cache else None, processes=processes) as crew:
            if not processes.first:
                crew.serve()
                return 0
            scores = evaluate_benchmark(evaluation, crew, tasks)
    report = write_report(options.output, benchmark, data_root=options.data_root, media=media, expected=expected)
    show(scores, benchmark, expected)
    print(report)
    return 1 if scores["failed"] else 0


def open_model(options: argparse.Namespace) -> "Embedder":
    """The model that the options name, embedding as they say."""
    from mmembed import Embedder

    chosen = {"dtype": options.dtype, "max_pixels": options.max_pixels}
    overrides = {name: value for name, value in chosen.items() if value is not None}
    return Embedder.from_pretrained(options.model, adapter=options.adapter, profile=options.profile, **overrides)


def explain(
    evaluation: "Evaluation", tasks: Sequence[str], cache: "EmbeddingCache | None", parts: Mapping[str, str]
) -> int:
    """Print what of each task is cached, and why the rest is not; nothing is embedded."""
    from mmembed.evaluation.misses import explain_task, misses_table

    if cache is None:
        raise InputError("--why-not-cached", expected="a cache", got="--cache-gb 0", remedy="give it room")
    space = cache.space(parts)
    others = [other for other in cache.spaces() if other.name != space.name]
    found = {}
    for name in tasks:
        task = evaluation.benchmark.tasks[name]
        found[name] = explain_task(task, evaluation.read(task), space, others)
    console().print(misses_table(found))
    return 0


def show(scores: Mapping[str, Any], benchmark: Benchmark, expected: "Expected | None" = None) -> None:
    """Print the table of scores."""
    from mmembed.evaluation.tables import table_text

    console().print(table_text(scores, benchmark, expected=expected))


def console() -> Console:
    """Where tables go; a log has no width of its own."""
    return Console(width=None if sys.stdout.isatty() else PAGE_WIDTH)


if __name__ == "__main__":
    sys.exit(main())
