"""Queries of a run beside the first targets that they found: a picture a task, and one page with filters for all.

A row is the reference (blue), what is asked, the first targets with rank and score, right ones
framed green, the reference among them grey-blue, and the best right one where none of these is.
Read from the run's rankings and the prepared data; no model is opened.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from eval import choices
from mmembed.commands import add_data_root
from mmembed.errors import InputError
from mmembed.evaluation.scores import percent, read_scores

BENCHMARKS = Path(__file__).parent / "benchmarks"
EXAMPLE = """examples:
  python eval/grid.py --run runs/demo/eval --benchmark demo --tasks composed --output runs/demo/grid
  python eval/grid.py --run runs/circo --benchmark circo --select random --n 50 --blind --output runs/study
  python eval/grid.py --run runs/cirr --benchmark cirr --select 12,40 --k 10 --output runs/two"""


def make_parser() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, required=True, metavar="DIR", help="output folder of eval/run.py")
    parser.add_argument("--benchmark", required=True, metavar="NAME|PATH", help="eval/benchmarks/NAME.yaml, or a file")
    parser.add_argument("--tasks", metavar="A,B", help="only these tasks")
    parser.add_argument("--n", type=int, default=20, metavar="N", help="queries of a task (20)")
    parser.add_argument("--k", type=int, default=8, metavar="K", help="targets of a query (8)")
    parser.add_argument(
        "--select", default="worst", metavar="worst|best|random|ID,ID", help="which queries: by how they did (worst)"
    )
    parser.add_argument("--blind", action="store_true", help="hide which targets are right, for people to judge")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="for grid.html and grid_TASK.png")
    add_data_root(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0 is success, 2 something in the input."""
    options = make_parser().parse_args(argv)
    try:
        return draw(options)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2


def draw(options: argparse.Namespace) -> int:
    """Write the pictures and the page."""
    from mmembed.evaluation.grid import Choice, make_grids, write_page
    from mmembed.evaluation.grid_picture import grid_picture
    from mmembed.evaluation.thumbnails import Thumbnails
    from mmembed.files import whole_file
    from mmembed.media.settings import MediaSettings

    benchmark = choices.find_benchmark(options.benchmark, BENCHMARKS)
    scores = read_scores(options.run, benchmark)
    part = benchmark if options.tasks is None else benchmark.only(options.tasks.split(","))
    choice = Choice(options.n, options.k, options.select, options.blind)
    data_root = options.data_root / "miniature" if scores["protocol"]["miniature"] else options.data_root
    grids = make_grids(options.run, scores, part, data_root, Thumbnails(MediaSettings(), num_frames=1), choice)
    for grid in grids:
        path = options.output / f"grid_{grid.name}.png"
        value = "" if options.blind else f"{grid.row['metric']} {percent(grid.row['score'])}, "
        last = "" if options.blind else "; last: the best right one, where none of the first is"
        legend = f"{value}protocol {grid.row['protocol_id']}, {scores['protocol']['model']}{last}"
        with whole_file(path) as file:
            grid_picture(grid, f"{scores['protocol']['benchmark']}: {grid.name}", legend).save(file, "PNG")
        print(path)
    write_page(options.output / "grid.html", grids, scores, choice)
    print(options.output / "grid.html")
    return 0


if __name__ == "__main__":
    sys.exit(main())
