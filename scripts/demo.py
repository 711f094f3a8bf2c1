"""The demo in one command: draw data, train from scratch, evaluate, report. A second call reuses what is done."""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from data_prep import demo as data  # noqa: E402
from eval import run as evaluation  # noqa: E402
from mmembed import __version__  # noqa: E402
from mmembed.commands import add_data_root  # noqa: E402
from mmembed.errors import InputError  # noqa: E402
from mmembed.evaluation.benchmark import read_benchmark  # noqa: E402
from mmembed.files import file_fingerprint, fingerprint, write_json  # noqa: E402
from mmembed.recipe import read_recipe, run_recipe  # noqa: E402
from mmembed.training.run_folder import RUN_FILE  # noqa: E402

BENCHMARK = ROOT / "eval/benchmarks/demo.yaml"
QUICK_SIZES = ("--singles", "300", "--pairs", "400", "--clips", "300", "--pages", "200", "--tests", "200")
QUICK = [
    *("--name", "demo-quick"),
    *("--stages.singles.steps", "60", "--stages.singles.validation.every", "60"),
    *("--stages.pairs.steps", "40", "--stages.pairs.validation.every", "40"),
]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0 is success, 2 something in the input."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the same path in a minute or two; scores are meaningless")
    add_data_root(parser)
    parser.add_argument("--output", type=Path, metavar="DIR", help="default: runs/demo, or runs/demo-quick")
    parser.add_argument("--seed", type=int, default=0, help="of the data")
    options = parser.parse_args(argv)
    root = options.data_root / "quick" if options.quick else options.data_root
    output = options.output or Path("runs") / ("demo-quick" if options.quick else "demo")
    started = time.monotonic()
    try:
        drawing = ["--data-root", str(root), "--seed", str(options.seed), *(QUICK_SIZES if options.quick else ())]
        data.main(drawing)
        recipe = read_recipe(ROOT / "configs/demo.yaml", QUICK if options.quick else [])
        final, trained = run_recipe(recipe, output, data_root=root, overwrite=True)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{'trained' if trained else 'already trained'}: {final}")
    if evaluated(output, root):
        code = 0
        evaluation.show(json.loads((output / "scores.json").read_text()), read_benchmark(BENCHMARK))
    else:
        code = evaluate(final, output, root)
    if code == 0:
        print(f"{time.monotonic() - started:.0f} s in all; look at {output / 'report.html'}")
    return code


def evaluate(final: Path, output: Path, root: Path) -> int:
    """Evaluate the trained model, and note what the scores belong to."""
    places = ["--data-root", str(root), "--output", str(output)]
    arguments = ["--model", str(final), "--benchmark", str(BENCHMARK), *places]
    code = evaluation.main(arguments)
    if code == 0:
        write_json(output / "evaluated.json", {"key": evaluation_key(output, root)})
    return code


def evaluated(output: Path, root: Path) -> bool:
    """Whether the scores in the folder are those of the run, data and benchmark at hand."""
    marker = output / "evaluated.json"
    return marker.is_file() and json.loads(marker.read_text())["key"] == evaluation_key(output, root)


def evaluation_key(output: Path, root: Path) -> str:
    """Names what an evaluation computes."""
    files = (output / RUN_FILE, root / "demo/demo.json", BENCHMARK)
    return fingerprint(__version__, *(file_fingerprint(file) for file in files))


if __name__ == "__main__":
    sys.exit(main())
