"""Benchmarks of mteb, evaluated by eval/run.py: --benchmark mteb:NAME."""

import argparse
import logging
from collections.abc import Mapping
from typing import Any

from eval.opened import opened
from eval.printing import console, show_failures
from mmembed.errors import InputError
from mmembed.evaluation.scores import percent
from mmembed.evaluation.tables import plain_table

PREFIX = "mteb:"
OTHERS = (
    *("modality", "prompts", "ndcg_fault", "quick", "miniature", "expected"),
    *("baselines", "rewritten", "score", "leaderboard", "why_not_cached"),
)
"""Options that are about rows of ours."""


def run_mteb(options: argparse.Namespace) -> int:
    """Do what the options say of a benchmark or task of mteb, on every process; the first one reports."""
    for name in OTHERS:
        given = getattr(options, name)
        # a seed of 0 is given, too
        if given is not None and given is not False:
            raise InputError(
                f"--{name.replace('_', '-')}", expected="a benchmark of ours beside it", got=options.benchmark,
                remedy="leave it out, or name a benchmark of eval/benchmarks",
            )  # fmt: skip
    # mteb takes seconds, and may not be installed
    from mmembed.serve.mteb.named import MOCK, choose_tasks, find_tasks, reads
    from mmembed.serve.mteb.run import evaluate_tasks

    name = options.benchmark.removeprefix(PREFIX)
    tasks = find_tasks(name)
    chosen = options.tasks.split(",") if options.tasks else None
    choose_tasks(tasks, chosen)
    from datasets import disable_progress_bars

    from mmembed.evaluation.about import about
    from mmembed.index.embedding_cache import space_name
    from mmembed.serve.mteb import MtebEncoder, meta_of

    disable_progress_bars()
    logging.getLogger("mteb").setLevel(logging.WARNING)
    with opened(options, []) as (model, parts, crew, processes):
        if not processes.first:
            crew.serve()
            return 0
        encoder = MtebEncoder(model, meta_of(model, revision=space_name(parts)), crew=crew, bars=True)
        if name == MOCK:
            tasks = [task for task in tasks if reads(encoder, task) is None]
        scores = evaluate_tasks(
            encoder, name, tasks, options.output, chosen=chosen, model=options.model, identity=space_name(parts),
            about=about(model, parts, processes=processes.world),
        )  # fmt: skip
    show_mteb(scores)
    print(options.output / "scores.json")
    show_failures(scores)
    return 1 if scores["failed"] else 0


def show_mteb(scores: Mapping[str, Any]) -> None:
    """Print the tables of scores and of means."""
    table = plain_table(f"{scores['protocol']['benchmark']}, mteb {scores['protocol']['mteb']}")
    table.add_column("task", no_wrap=True)
    for column in ("type", "metric"):
        table.add_column(column, overflow="fold")
    table.add_column("score", justify="right", no_wrap=True)
    table.add_column("protocol", no_wrap=True)
    for name, row in scores["tasks"].items():
        table.add_row(name, row["type"], row["metric"], percent(row["score"]), row["protocol_id"])
    console().print(table)
    means = plain_table("means")
    means.add_column("mean over")
    means.add_column("score", justify="right")
    means.add_column("tasks", justify="right")
    for name, mean in scores["means"].items():
        if mean["tasks"]:
            means.add_row(name, percent(mean["mean"]), f"{mean['tasks']} of {mean['of']}")
    console().print(means)
