"""Every region encoder on the demo's region task, side by side: the same model, data and steps for each.

Draws the demo's data, trains configs/demo_regions.yaml once for each encoder from scratch,
evaluates it with the region, without it and with another one, and lays all of them on one page.
A second call reuses what is done.
"""

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from rich.console import Console  # noqa: E402

from data_prep import demo as data  # noqa: E402
from eval import run as evaluation  # noqa: E402
from mmembed.commands import add_data_root  # noqa: E402
from mmembed.errors import InputError, nearest  # noqa: E402
from mmembed.evaluation.benchmark import read_benchmark  # noqa: E402
from mmembed.evaluation.side_by_side import read_runs, runs_table, shared_tasks, write_page  # noqa: E402
from mmembed.files import file_fingerprint, fingerprint, write_json  # noqa: E402
from mmembed.progress import PAGE_WIDTH  # noqa: E402
from mmembed.recipe import read_recipe, run_recipe  # noqa: E402
from mmembed.training.run_folder import RUN_FILE  # noqa: E402
from scripts.demo import QUICK_SIZES  # noqa: E402

BENCHMARK = ROOT / "eval/benchmarks/demo_regions.yaml"
CONFIG = ROOT / "configs/demo_regions.yaml"
ENCODERS: Mapping[str, Mapping[str, object]] = {
    "roi_replay": {"class_path": "RoiReplay", "init_args": {"size": 2}},
    "mask_pool": {"class_path": "MaskPool", "init_args": {"layers": [1, 2]}},
    "mask_channel": {"class_path": "MaskChannel"},
    "sam2": {"class_path": "Sam2Regions", "init_args": {"scratch": {"image_size": 128}}},
    "overlay": {"class_path": "Overlay", "init_args": {"line": 0.03}},
    "text": {"class_path": "TextRegions", "init_args": {"scale": 8}},
    "crop": {"class_path": "Crop"},
}
"""What is compared: settings of ``embedder.regions``."""
QUICK = ("--stages.singles.steps", "10", "--stages.regions.steps", "10")
SCORED = "scored.json"


def recipe_of(encoder: str, *, quick: bool) -> list[str]:
    """The overrides that make the recipe one for this encoder."""
    return ["--embedder.regions", json.dumps(ENCODERS[encoder]), *(QUICK if quick else ())]


def train_and_score(encoder: str, output: Path, root: Path, *, quick: bool) -> dict[str, str]:
    """Train and evaluate one encoder, or find both done.

    Returns:
        What the page says of it beside its scores.

    Raises:
        InputError: a run of another recipe stands there, or data that cannot be used.
    """
    recipe = read_recipe(CONFIG, recipe_of(encoder, quick=quick))
    final, _ = run_recipe(recipe, output, data_root=root, overwrite=True)
    key = fingerprint(*(file_fingerprint(file) for file in (output / RUN_FILE, root / "demo/demo.json", BENCHMARK)))
    marker = output / SCORED
    if not (marker.is_file() and json.loads(marker.read_text())["key"] == key):
        code = evaluation.main(
            ["--model", str(final), "--benchmark", str(BENCHMARK), "--data-root", str(root), "--output", str(output)]
        )
        if code != 0:
            raise InputError(output, expected="a whole evaluation", got=f"exit code {code}", remedy="see above")
        write_json(marker, {"key": key})
    seconds = json.loads((output / RUN_FILE).read_text())["train_seconds"]
    return {"trained": f"{seconds / 60:.1f} min"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0 is success, 2 something in the input."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = ",".join(ENCODERS)
    parser.add_argument("--encoders", default=names, metavar="A,B", help=f"default: all of {names}")
    parser.add_argument("--quick", action="store_true", help="the same path in a minute or two; scores are meaningless")
    add_data_root(parser)
    parser.add_argument("--output", type=Path, default=Path("runs/demo-regions"), metavar="DIR", help="one folder each")
    options = parser.parse_args(argv)
    root = options.data_root / "quick" if options.quick else options.data_root
    started = time.monotonic()
    try:
        encoders = options.encoders.split(",")
        for name in encoders:
            if name not in ENCODERS:
                remedy = nearest(name, ENCODERS)
                raise InputError("--encoders", expected="names of encoders", got=f"'{name}'", remedy=remedy)
        data.main(["--data-root", str(root), *(QUICK_SIZES if options.quick else ())])
        outputs = {name: options.output / name for name in encoders}
        facts = {name: train_and_score(name, outputs[name], root, quick=options.quick) for name in encoders}
        benchmark = read_benchmark(BENCHMARK)
        runs = read_runs(outputs, benchmark, facts)
        console = Console(width=None if sys.stdout.isatty() else PAGE_WIDTH)
        for task in shared_tasks(runs):
            console.print(runs_table(runs, task))
        page = write_page(options.output / "report.html", runs, benchmark, data_root=root)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{time.monotonic() - started:.0f} s in all; look at {page}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
