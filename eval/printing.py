"""What eval/run.py and eval/verify.py print."""

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console

from mmembed.errors import InputError
from mmembed.evaluation.benchmark import Benchmark
from mmembed.progress import PAGE_WIDTH

if TYPE_CHECKING:
    from mmembed.evaluation.expected import Expected
    from mmembed.evaluation.runner import Evaluation
    from mmembed.index.embedding_cache import EmbeddingCache


def console() -> Console:
    """Where tables go; a log has no width of its own."""
    return Console(width=None if sys.stdout.isatty() else PAGE_WIDTH)


def show(scores: Mapping[str, Any], benchmark: Benchmark, expected: "Expected | None" = None) -> None:
    """Print the table of scores, that of means, and that of scores among groups of candidates."""
    from mmembed.evaluation.tables import candidates_table, means_table, table_text

    console().print(table_text(scores, benchmark, expected=expected))
    for table in (means_table(scores, benchmark, expected=expected), candidates_table(scores)):
        if table is not None:
            console().print(table)


def show_metrics(row: Mapping[str, Any]) -> None:
    """Print hits and the task's metric at every cut-off, times 100 with the digits that papers compare, and groups."""
    kinds = dict.fromkeys(("hit", "best_hit", row["metric"].partition("@")[0]))
    for name, value in row["metrics"].items():
        if name.partition("@")[0] in kinds:
            print(f"  {name:<30}{100 * value:9.4f}")
    for kind, groups in row["groups"].items():
        for name, group in groups.items():
            print(f"  {row['metric']}, {kind} {name}: {100 * group['score']:.4f} of {group['queries']}")


def show_failures(scores: Mapping[str, Any]) -> None:
    """Print which tasks failed, last and where errors go."""
    if failed := scores["failed"]:
        done = len(scores["tasks"])
        print(f"failed: {len(failed)} of {len(failed) + done} tasks: {', '.join(failed)}", file=sys.stderr)


def explain(
    evaluation: "Evaluation", tasks: Sequence[str], cache: "EmbeddingCache | None", parts: Mapping[str, str]
) -> int:
    """Print what of each task is cached, and why the rest is not; nothing is embedded.

    Returns:
        0, or 1 where a task's data cannot be read; the others are explained.
    """
    from mmembed.evaluation.misses import explain_task, misses_table

    if cache is None:
        raise InputError("--why-not-cached", expected="a cache", got="--cache-gb 0", remedy="give it room")
    space = cache.space(parts)
    others = [other for other in cache.spaces() if other.name != space.name]
    found, failed = {}, {}
    for name in tasks:
        task = evaluation.benchmark.tasks[name]
        try:
            found[name] = explain_task(task, evaluation.read(task), space, others, evaluation.media)
        except InputError as error:
            failed[name] = error
    console().print(misses_table(found))
    for name, error in failed.items():
        print(f"failed: {name}: {error}", file=sys.stderr)
    return 1 if failed else 0
