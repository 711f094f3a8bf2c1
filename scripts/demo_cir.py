"""Composed retrieval on the demo, side by side: ways to compose a picture and a change, most without composed training.

Draws the demo's data, trains configs/demo_cir.yaml (a small CLIP, then LinCIR's mapping network on captions alone), and
evaluates on the demo's composed task: the picture alone, the words alone, their sum, a point on the circle between
them, their product, LinCIR, and the model of make demo, which learned from composed queries. All of them stand on one
page. A second call reuses what is done.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from rich.console import Console  # noqa: E402

from data_prep import demo as data  # noqa: E402
from eval import run as evaluation  # noqa: E402
from mmembed import __version__  # noqa: E402
from mmembed.commands import add_data_root  # noqa: E402
from mmembed.errors import InputError  # noqa: E402
from mmembed.evaluation.benchmark import read_benchmark  # noqa: E402
from mmembed.evaluation.side_by_side import read_runs, runs_table, shared_tasks, write_page  # noqa: E402
from mmembed.files import file_fingerprint, fingerprint, write_json  # noqa: E402
from mmembed.models.settings import ComposerSettings, Product, RawPrompt, Slerp, Sum  # noqa: E402
from mmembed.progress import PAGE_WIDTH  # noqa: E402
from mmembed.recipe import read_recipe, run_recipe  # noqa: E402
from mmembed.training.run_folder import RUN_FILE  # noqa: E402
from scripts.demo import QUICK_SIZES  # noqa: E402

EXAMPLE = "example: python scripts/demo_cir.py --data-root data --vlm runs/demo/final"
BENCHMARK = ROOT / "eval/benchmarks/demo_cir.yaml"
CONFIG = ROOT / "configs/demo_cir.yaml"
COMPOSERS: Mapping[str, ComposerSettings | None] = {
    "image": Sum(image_weight=1.0),
    "text": Sum(image_weight=0.0),
    "sum": Sum(),
    "sum_0.3": Sum(image_weight=0.3),
    "slerp": Slerp(),
    "slerp_0.8": Slerp(alpha=0.8),
    "product": Product(),
    "lincir": None,
}
"""What is compared on the small CLIP; None is the composer that was trained. Where two of a kind stand, the second has
the weight that a sweep on this very task found best, so that its score flatters it, as LinCIR's does (see the YAML)."""
QUICK = ("--stages.clip.steps", "20", "--stages.lincir.steps", "20")
CAPTIONED, CAPTIONS = "pictures with captions", "and captions alone"
COMPOSED = "the demo's tasks, composed among them"
SCORED = "scored.json"


@dataclass(frozen=True)
class Contestant:
    """A model on the page.

    Args:
        name: what the page calls it.
        model: its folder.
        learned: what it learned from, in words.
        prompts: version of the task's prompts that it is asked with.
    """

    name: str
    model: Path
    learned: str
    prompts: str = "1"


def contestants(final: Path, vlm: Path, output: Path) -> Iterator[Contestant]:
    """The models to compare; those of the small CLIP are written below ``output``.

    Args:
        final: the trained CLIP with its mapping network.
        vlm: the model of make demo; left out, and said so, where there is none.
        output: folder of the demo.
    """
    for name, composer in COMPOSERS.items():
        if composer is None:
            yield Contestant(name, final, f"{CAPTIONED}, {CAPTIONS}")
        else:
            yield Contestant(name, composed(final, composer, output / name / "model"), CAPTIONED)
    if (vlm / "embedder.yaml").is_file():
        yield Contestant("vlm", vlm, COMPOSED, "instructed")
    else:
        print(f"no model in {vlm}: its row is left out; make demo trains it", file=sys.stderr)


def composed(final: Path, composer: ComposerSettings, folder: Path) -> Path:
    """The trained CLIP with another composer, saved in ``folder`` unless it is there already."""
    made, key = folder.parent / "made_of.json", fingerprint(weights_key(final), repr(composer))
    if not (folder.is_dir() and made.is_file() and json.loads(made.read_text())["key"] == key):
        # takes seconds, which a second call need not wait for
        from mmembed import Embedder

        model = Embedder.from_pretrained(final, device="cpu")
        backbone: Any = replace(model.settings.backbone, path=str(final.absolute()))
        # without the phrase, whose placeholder nothing would fill
        settings = replace(
            model.settings, backbone=backbone, prompt=RawPrompt(), pooler=composer, pooler_weights=None
        )  # fmt: skip
        Embedder(settings).save(folder)
        write_json(made, {"key": key})
    return folder


def weights_key(model: Path) -> str:
    """Names what a saved model computes."""
    files = sorted(file for file in model.rglob("*") if file.suffix in (".safetensors", ".yaml"))
    return fingerprint(__version__, *(file_fingerprint(file) for file in files))


def score(contestant: Contestant, output: Path, root: Path) -> None:
    """Evaluate a model, or find it done.

    Raises:
        InputError: the evaluation is not whole.
    """
    files = (file_fingerprint(file) for file in (root / "demo/demo.json", BENCHMARK))
    key = fingerprint(weights_key(contestant.model), contestant.prompts, *files)
    marker = output / SCORED
    if marker.is_file() and json.loads(marker.read_text())["key"] == key:
        return
    code = evaluation.main([
        *("--model", str(contestant.model), "--benchmark", str(BENCHMARK), "--prompts", contestant.prompts),
        *("--data-root", str(root), "--output", str(output)),
    ])  # fmt: skip
    if code != 0:
        raise InputError(output, expected="a whole evaluation", got=f"exit code {code}", remedy="see above")
    write_json(marker, {"key": key})


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0 is success, 2 something in the input."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="the same path in a minute or two; scores are meaningless")
    add_data_root(parser)
    parser.add_argument("--vlm", type=Path, metavar="DIR", help="model of make demo (runs/demo/final, or demo-quick's)")
    parser.add_argument("--output", type=Path, default=Path("runs/demo-cir"), metavar="DIR", help="one folder each")
    options = parser.parse_args(argv)
    root = options.data_root / "quick" if options.quick else options.data_root
    vlm = options.vlm or Path("runs") / ("demo-quick" if options.quick else "demo") / "final"
    started = time.monotonic()
    try:
        data.main(["--data-root", str(root), *(QUICK_SIZES if options.quick else ())])
        recipe = read_recipe(CONFIG, QUICK if options.quick else ())
        final, _ = run_recipe(recipe, options.output / "lincir", data_root=root, overwrite=True)
        entered = list(contestants(final, vlm, options.output))
        for one in entered:
            score(one, options.output / one.name, root)
        benchmark = read_benchmark(BENCHMARK)
        facts = {one.name: {"learned from": one.learned} for one in entered}
        runs = read_runs({one.name: options.output / one.name for one in entered}, benchmark, facts)
        console = Console(width=None if sys.stdout.isatty() else PAGE_WIDTH)
        for task in shared_tasks(runs):
            console.print(runs_table(runs, task))
        page = write_page(options.output / "report.html", runs, benchmark, data_root=root)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    seconds = json.loads((options.output / "lincir" / RUN_FILE).read_text())["train_seconds"]
    print(
        f"CLIP and LinCIR trained in {seconds / 60:.1f} min; {time.monotonic() - started:.0f} s in all; look at {page}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
