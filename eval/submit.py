"""Write what a benchmark's test server takes, and check it: CIRR's two files, CIRCO's one, or a generic file.

Answers of such rows are not public: they are ranked here and scored there. Every file is checked
as it is written. With --check any file is checked against the prepared data, whoever wrote it.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from eval import choices
from eval.opened import add_cache, add_model, opened
from mmembed.commands import add_data_root, is_first_process
from mmembed.errors import InputError, nearest
from mmembed.evaluation.benchmark import Benchmark, Task
from mmembed.evaluation.submissions import (
    FORMATS,
    Format,
    format_of,
    formats_of,
    problems,
    read_file,
    size_problem,
    write_submission,
)  # fmt: skip

if TYPE_CHECKING:
    from mmembed.evaluation.retrieval_set import RetrievalSet
    from mmembed.media.settings import MediaSettings

BENCHMARKS = Path(__file__).parent / "benchmarks"
MOST_SHOWN = 20
"""Problems of a file that are told; the others are counted."""
GENERIC_DEPTH = 50
EXAMPLE = """examples:
  python eval/submit.py --model DIR --benchmark cirr --output runs/cirr
  python eval/submit.py --model DIR --benchmark circo --tasks val --output runs/circo
  python eval/submit.py --benchmark circo --check runs/circo/circo_test.json"""


def make_parser() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_model(parser, required=False)
    parser.add_argument("--benchmark", required=True, metavar="NAME|PATH", help="eval/benchmarks/NAME.yaml, or a file")
    parser.add_argument("--output", type=Path, metavar="DIR", help="folder to write to")
    parser.add_argument(
        "--check", type=Path, metavar="FILE", help="check this file against the row; nothing is embedded"
    )
    add_data_root(parser)
    parser.add_argument("--tasks", metavar="A,B", help="these rows (default: those whose answers are not public)")
    parser.add_argument("--prompts", metavar="VERSION", help="this version of the prompts where a row has it")
    parser.add_argument(
        "--rewritten", type=Path, metavar="DIR", help="ask with the texts that data_prep/rewrite_queries.py wrote"
    )
    parser.add_argument("--format", choices=tuple(FORMATS), help="default: that of the benchmark's name, else generic")
    add_cache(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0 is success, 1 a checked file that is not as it must be, 2 something in the input."""
    parser = make_parser()
    options = parser.parse_args(argv)
    if options.check is None and (options.model is None or options.output is None):
        parser.error("--model and --output are required, but for --check")
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        benchmark = choices.find_benchmark(options.benchmark, BENCHMARKS)
        rows = chosen_rows(benchmark, options.tasks, options.prompts)
        kinds = formats_of(options.format or (benchmark.name if benchmark.name in FORMATS else "generic"))
        if options.check is not None:
            return check(options.check, rows, kinds, options.data_root)
        return submit(options, benchmark.name, rows, kinds)
    except InputError as error:
        if is_first_process():
            print(error, file=sys.stderr)
        return 2


def chosen_rows(benchmark: Benchmark, names: str | None, version: str | None) -> list[Task]:
    """The rows to rank, one for each set of data and wording: those without public answers unless they are named.

    Raises:
        InputError: a name that is no row, or no row whose answers are not public.
    """
    if version is not None:
        benchmark = benchmark.worded(version)
    known = benchmark.tasks | benchmark.unjudged
    wanted = list(benchmark.unjudged) if names is None else names.split(",")
    for name in wanted:
        if name not in known:
            raise InputError(
                "--tasks", expected=f"a row of {benchmark.name}", got=f"'{name}'", remedy=nearest(name, known)
            )
    if not wanted:
        raise InputError(
            "--tasks", expected="a row, for the answers of all are public", got="none",
            remedy=f"add --tasks {next(iter(known))}",
        )  # fmt: skip
    rows = {(known[name].data, repr(known[name].wording)): known[name] for name in reversed(wanted)}
    return list(reversed(rows.values()))


def submit(options: argparse.Namespace, benchmark: str, rows: Sequence[Task], kinds: Sequence[Format]) -> int:
    """Embed and rank the rows, on every process; the first one writes their files."""
    sets = [read(row, options.data_root) for row in rows]
    asked = [as_asked(row, of, options.rewritten) for row, of in zip(rows, sets, strict=True)]
    with opened(options, rows) as (model, _, crew, processes):
        if not processes.first:
            crew.serve()
            return 0
        from mmembed.evaluation.vectors import embed_task

        for row, retrieval_set, (wanted, data) in zip(rows, sets, asked, strict=True):
            media: MediaSettings = model.settings.backbone.media
            vectors = embed_task(replace(wanted, blind=(), blind_targets=()), data, crew, media)
            for kind in kinds:
                metric = f"_{kind.head['metric']}" if len(kinds) > 1 else ""
                path = options.output / f"{benchmark}_{row.name}{metric}.json"
                write(path, kind, row, retrieval_set, vectors.queries, vectors.targets)
                print(f"{path}: {len(retrieval_set.queries):,} queries, {path.stat().st_size:,} bytes, checked")
    return 0


def as_asked(row: Task, retrieval_set: "RetrievalSet", folder: Path | None) -> "tuple[Task, RetrievalSet]":
    """A row and its data as the model is asked: as they are, or with the rewritten queries of a folder."""
    from mmembed.evaluation.rewritten import read_rewritten

    if folder is None:
        return row, retrieval_set
    rewritten = read_rewritten(folder, row.name)
    rewritten.check(retrieval_set)
    return rewritten.asked(row), rewritten.applied(retrieval_set)


def write(path: Path, kind: Format, row: Task, retrieval_set: "RetrievalSet", queries: object, targets: object) -> None:
    """Rank under the rules of a format, write its file and check it; a file with a problem is not left there.

    Raises:
        InputError: what is wrong with it, e.g. a gallery of fewer targets than a list must have.
    """
    from mmembed.evaluation.rankings import rank
    from mmembed.files import whole_file

    task = kind.rules(row)
    rankings = rank(task, retrieval_set, queries, targets, kind.length or GENERIC_DEPTH)
    with whole_file(path) as part:
        write_submission(part, kind, rankings)
        for problem in (*problems(read_file(part), kind, task, retrieval_set), size_problem(part, kind)):
            if problem is not None:
                raise problem.within(path)


def check(path: Path, rows: Sequence[Task], kinds: Sequence[Format], data_root: Path) -> int:
    """Check a file against the data of the one row, and print what is wrong with it."""
    if len(rows) > 1:
        names = ", ".join(row.name for row in rows)
        raise InputError("--check", expected="one row", got=names, remedy=f"add --tasks {rows[0].name}")
    from mmembed.evaluation.rankings import check_rules

    pairs = read_file(path)
    kind = format_of(pairs, kinds, path)
    retrieval_set, task = read(rows[0], data_root), kind.rules(rows[0])
    check_rules(task, retrieval_set)
    found = [*problems(pairs, kind, task, retrieval_set)]
    found += [problem] if (problem := size_problem(path, kind)) is not None else []
    for problem in found[:MOST_SHOWN]:
        print(problem, file=sys.stderr)
    if found:
        more = f", of which {MOST_SHOWN} are shown" if len(found) > MOST_SHOWN else ""
        print(f"{path}: {len(found):,} problem{'' if len(found) == 1 else 's'} as {kind.name}{more}", file=sys.stderr)
        return 1
    print(f"{path}: {len(retrieval_set.queries):,} queries of {rows[0].name}, as {kind.name} must be")
    return 0


def read(row: Task, data_root: Path) -> "RetrievalSet":
    """The data of a row; that they are a part of the published ones is said.

    Raises:
        InputError: data that are not there, or cannot be used.
    """
    from mmembed.evaluation.retrieval_set import read_retrieval_set

    folder = data_root / row.data
    if not folder.is_dir():
        raise InputError(
            folder, expected="the folder of a retrieval set", got="no such folder",
            remedy=choices.how_to_prepare(row, data_root),
        )  # fmt: skip
    if is_first_process() and (why := choices.why_partial(row, data_root)) is not None:
        print(f"warning: {folder}: {why}: a server takes nothing less than all of its queries", file=sys.stderr)
    return read_retrieval_set(folder)


if __name__ == "__main__":
    sys.exit(main())
