"""List the published checkpoints that open by their names, with what was published of their scores."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mmembed.errors import InputError
from mmembed.evaluation.benchmark import OVERALL, Benchmark, read_benchmark
from mmembed.evaluation.expected import Expected, read_expected
from mmembed.evaluation.means import means
from mmembed.files import write_text
from mmembed.models.profiles import Released, released_names, released_row

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/released.md"
BEGIN, END = "<!-- begin: written by scripts/list_released.py --write -->", "<!-- end -->"
HEAD = ("checkpoint", "profile", "weights", "licence", "paper", "published scores")
INSIDE = ("mmeb", "mmeb_v2_extra")
"""Benchmarks whose scores are among those of another, or of older data."""
FEW = 4
"""Scores of a benchmark of so many tasks are told one by one."""
EXAMPLE = """examples:
  python scripts/list_released.py                 every checkpoint, its profile, weights and licence
  python scripts/list_released.py --only gme      those whose name or profile holds the word
  python scripts/list_released.py --write         renew the table of docs/released.md"""


@cache
def published_scores() -> dict[str, list[str]]:
    """What was published of each model's scores, in words, by the name of the entry."""
    found: dict[str, list[str]] = {}
    for path in sorted((ROOT / "eval/expected").glob("*.yaml")):
        if path.stem in INSIDE:
            continue
        benchmark = read_benchmark(ROOT / "eval/benchmarks" / path.name)
        for entry in read_expected(path).values():
            if words := _scores(entry, benchmark):
                found.setdefault(entry.name, []).append(f"{benchmark.name}: {words}")
    return found


def _scores(entry: Expected, benchmark: Benchmark) -> str:
    """The entry's means, or its few scores, in percent."""
    of_tasks = means({name: score.score for name, score in entry.scores.items()}, benchmark)
    few = entry.scores if len(benchmark.tasks) <= FEW else {}
    if few:
        return ", ".join(f"{name} {100 * row.score:.1f}" for name, row in few.items())
    parts = [name for name in (OVERALL, "image", "video", "visdoc") if name in benchmark.parts]
    known = {name: entry.means.get(name) if of_tasks[name].mean is None else of_tasks[name].mean for name in parts}
    return ", ".join(f"{name} {100 * mean:.1f}" for name, mean in known.items() if mean is not None)


def rows(only: str = "") -> Iterator[tuple[str, ...]]:
    """A row of :data:`HEAD` for each checkpoint, by profile and name."""
    scores = published_scores()
    for name, profile in sorted(released_names().items(), key=lambda pair: (pair[1], pair[0])):
        if only.lower() in f"{name} {profile}".lower():
            row = released_row(name)
            yield (
                name,
                profile,
                _weights(row),
                row.licence or "not found",
                row.paper,
                "; ".join(scores.get(row.published or "", [])),
            )


def _weights(row: Released) -> str:
    return "whole" if row.base is None else f"adapter of {row.base}"


def page(text: str) -> str:
    """The page with its table written anew."""
    before, _, rest = text.partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        raise InputError(PAGE, expected=f"'{BEGIN}' and '{END}'", got="a page without", remedy="put the lines back")
    lines = [HEAD, ("---",) * len(HEAD), *((f"`{row[0]}`", f"`{row[1]}`", *map(_link, row[2:])) for row in rows())]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{before}{BEGIN}\n\n{table}\n\n{END}{after}"


def _link(words: str) -> str:
    """An arXiv number as a link."""
    is_number = words.replace(".", "", 1).isdigit() and "." in words
    return f"[{words}](https://arxiv.org/abs/{words})" if is_number else words


def show(only: str) -> int:
    """Print the table; 1 where nothing is like the word."""
    from rich.table import Table

    from eval.printing import console

    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in HEAD:
        table.add_column(name, overflow="fold")
    found = list(rows(only))
    for row in found:
        table.add_row(*row)
    console().print(table if found else f"no checkpoint or profile with '{only}'")
    return 0 if found else 1


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0 is success, 1 nothing found, 2 something in the input."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", metavar="WORD", help="those whose name or profile holds it")
    parser.add_argument("--write", action="store_true", help="renew the table of docs/released.md")
    options = parser.parse_args(argv)
    try:
        if not options.write:
            return show(options.only)
        write_text(PAGE, page(PAGE.read_text(encoding="utf-8")))
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
