"""Fine-tune on your own data: from a folder of pictures and a CSV to a trained, evaluated, exported model.

Makes tables and held-out sets of the CSV, writes a recipe for their size, evaluates the model
as it is, trains it, evaluates it again, lays both side by side, and exports the result, for
sentence-transformers say. Before each step stands the command that does it alone. What is done
already is not done again.
"""

import argparse
import json
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from data_prep.commands import OWN_DATA
from data_prep.own.made import MADE, Made, make
from data_prep.own_data import add_data, choice_of, show, words_of
from mmembed import __version__
from mmembed.errors import InputError
from mmembed.files import file_fingerprint, fingerprint, write_json
from scripts.own_recipe import STAGE, Base, find_base, own_recipe, write_recipe

EXAMPLE = """examples:
  python scripts/own_data.py --pictures photos --csv products.csv --picture-column file --text-column title \\
      --model Qwen/Qwen2-VL-2B-Instruct
  python scripts/own_data.py --pictures photos --csv products.csv --picture-column file --text-column title \\
      --model runs/demo/final --train all --quick

Every setting of the recipe is an option too, e.g. --stages.main.optim.lr 5e-5."""
STEPS = ("data", "recipe", "before", "train", "after", "export")
QUICK_ROWS, QUICK_STEPS = 300, 10
DONE = "evaluated.json"

Main = Callable[[Sequence[str]], int]


class StepError(RuntimeError):
    """A step ended with a status that is not 0, and said why itself."""

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.status = status


@dataclass(frozen=True)
class Run:
    """One call of the command.

    Args:
        options: as given.
        overrides: settings of the recipe among them.
        output: folder of everything.
        data_words: the options of the data, as one would type them.
    """

    options: argparse.Namespace
    overrides: Sequence[str]
    output: Path
    data_words: Sequence[str]

    @property
    def recipe(self) -> Path:
        """The recipe for these data."""
        return self.output / "recipe.yaml"

    @property
    def final(self) -> Path:
        """The trained model."""
        return self.output / "run/final"

    @property
    def places(self) -> list[str]:
        """Where the data of a step lie."""
        return ["--data-root", str(self.output)]

    def begin(self, step: str, title: str, script: str, words: Sequence[str]) -> None:
        """Print what comes, and the command that does it alone."""
        print(f"\n[{STEPS.index(step) + 1}/{len(STEPS)}] {title}\n$ python {script} {shlex.join(words)}", flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0 is success, 1 a step that failed, 2 something in the input, 143 a run told to stop."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    data = add_data(parser)
    model = parser.add_argument_group("the model and its training")
    model.add_argument("--model", required=True, metavar="DIR_OR_ID", help="a run's final/, or a Hub id")
    model.add_argument("--adapter", metavar="DIR_OR_ID", help="LoRA or DoRA on it, to go on with")
    model.add_argument("--profile", metavar="NAME", help="how it embeds, where neither it nor its name says so")
    model.add_argument("--train", choices=("lora", "all"), default="lora", help="an adapter (default), or all weights")
    model.add_argument("--steps", type=int, metavar="N", help="optimiser steps (default: by the number of pairs)")
    model.add_argument("--max-pixels", type=int, metavar="N", help="most pixels of a picture; fewer train faster")
    model.add_argument(
        "--dtype", choices=("float32", "bfloat16", "float16"),
        help="of the weights (default: bfloat16 for an adapter on a GPU, else as they were saved)",
    )  # fmt: skip
    what = parser.add_argument_group("what is done")
    what.add_argument("--output", type=Path, metavar="DIR", help="folder of everything (default: runs/NAME of the CSV)")
    what.add_argument("--until", choices=STEPS, default=STEPS[-1], help="stop after this step")
    what.add_argument("--overwrite", action="store_true", help="replace a training run of other settings or data")
    what.add_argument("--to", choices=("st", "hf", "vllm"), default="st", help="what the model is exported for (st)")
    what.add_argument("--without-regions", action="store_true", help="export a model of regions without that part")
    what.add_argument("--without-video", action="store_true", help="export a model of clips for pictures alone")
    what.add_argument(
        "--quick", action="store_true",
        help=f"a trial: {QUICK_ROWS} rows, {QUICK_STEPS} steps, into a folder of its own; its scores mean little",
    )  # fmt: skip
    options, overrides = parser.parse_known_args(argv)
    output = options.output or Path("runs") / options.csv.stem
    if options.quick:
        output = output.with_name(f"{output.name}-quick")
        options.limit, options.steps = options.limit or QUICK_ROWS, options.steps or QUICK_STEPS
    started = time.monotonic()
    try:
        walk(Run(options, overrides, output, words_of(data, options)))
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    except StepError as error:
        return error.status
    print(f"\n{time.monotonic() - started:.0f} s in all")
    return 0


def walk(run: Run) -> None:
    """Do the steps up to the last one asked for."""
    until = STEPS.index(run.options.until)
    made = make_data(run)
    if until == 0:
        return
    base = make_recipe(run, made)
    later = (partial(evaluate_before, run, base), partial(train, run), partial(compare, run), partial(export, run))
    for step in later[: until - 1]:
        step()


def make_data(run: Run) -> Made:
    """Tables and held-out sets."""
    words = [*run.data_words, "--output", str(run.output)]
    run.begin("data", "tables and held-out sets", "data_prep/own_data.py", words)
    made = make(choice_of(run.options), run.output)
    show(made)
    return made


def make_recipe(run: Run, made: Made) -> Base:
    """The recipe, and the model that it begins with."""
    options = run.options
    words = ["--config", str(run.recipe), "--print_config"]
    run.begin("recipe", "a recipe for their number; the command shows it", "scripts/train.py", words)
    base = find_base(options.model, options.adapter, options.profile, chosen_settings(options))
    if base.profile is not None:
        why = "" if options.profile else ", as is usual for its kind"
        print(f"{options.model} embeds by profile {base.profile}{why}")
    named, steps = run.output.name, options.steps
    recipe = own_recipe(base, made, named, train=options.train, steps=steps, overrides=run.overrides)
    done = write_recipe(run.recipe, recipe)
    stage = recipe.stages[STAGE]
    told = f"{options.train}, {stage.steps} steps of {stage.sampling.batch_size} pairs, rate {stage.optim.lr:g}"
    if done == "kept, changed by hand":
        told = "options of the model and its training do not change it; without the file they would"
    print(f"{done}: {run.recipe} ({told})")
    return base


def chosen_settings(options: argparse.Namespace) -> dict[str, object]:
    """Settings of the backbone in which the model differs from what was saved or published."""
    dtype = options.dtype
    if dtype is None and options.train == "lora":
        import torch

        dtype = "bfloat16" if torch.cuda.is_available() else None
    chosen = {"dtype": dtype, "max_pixels": options.max_pixels}
    return {name: value for name, value in chosen.items() if value is not None}


def evaluate_before(run: Run, base: Base) -> None:
    """The model as it is, on the held-out sets; refused here if nothing could be exported after hours of training."""
    evaluate(run, "before", "the model as it is", base.options)
    if run.options.until == "export" and not run.final.is_dir():
        from mmembed import Embedder
        from mmembed.serve.export.refusals import check_target

        options = run.options
        model = Embedder.from_pretrained(
            base.model, adapter=base.adapter, profile=base.profile, device="cpu", **base.overrides
        )  # fmt: skip
        without = {"without_regions": options.without_regions, "without_video": options.without_video}
        check_target(model, options.to, **without)


def train(run: Run) -> None:
    """Train by the recipe."""
    from scripts.train import main as train_main

    words = ["--config", str(run.recipe), *run.places, "--output", str(run.final.parent)]
    run.begin("train", "training", "scripts/train.py", words)
    call(train_main, [*words, *(["--overwrite"] if run.options.overwrite else [])])


def compare(run: Run) -> None:
    """The trained model on the same sets, beside the model as it was."""
    from eval.compare import main as compare_main
    from eval.side_by_side import main as side_by_side_main

    evaluate(run, "after", "the trained model", ["--model", str(run.final)])
    before, after = run.output / "before", run.output / "after"
    benchmark = ["--benchmark", str(run.output / "benchmark.yaml"), *run.places]
    words = [f"before={before}", f"after={after}", *benchmark, "--output", str(run.output / "report.html")]
    run.begin("after", "before and after, side by side", "eval/side_by_side.py", words)
    call(side_by_side_main, words)
    words = [str(before), str(after)]
    run.begin("after", "what training changed, query by query", "eval/compare.py", words)
    call(compare_main, words)


def evaluate(run: Run, name: str, title: str, model: Sequence[str]) -> None:
    """A model on the held-out sets, unless that is done."""
    from eval.run import main as run_main

    output = run.output / name
    words = [*model, "--benchmark", str(run.output / "benchmark.yaml"), *run.places, "--output", str(output)]
    run.begin("before" if name == "before" else "after", title, "eval/run.py", words)
    key = evaluation_key(run, words)
    if (output / DONE).is_file() and json.loads((output / DONE).read_text(encoding="utf-8"))["key"] == key:
        print(f"there already: {output / 'report.html'}")
        return
    call(run_main, words)
    write_json(output / DONE, {"key": key})


def evaluation_key(run: Run, words: Sequence[str]) -> str:
    """Names what an evaluation computes: the command, the data, and the files of a model that lies here."""
    model = Path(words[words.index("--model") + 1])
    files = sorted(path for path in model.rglob("*") if path.is_file()) if model.is_dir() else []
    stamps = (f"{path} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in files)
    data = (file_fingerprint(path) for path in (run.output / OWN_DATA / MADE, run.output / "benchmark.yaml"))
    return fingerprint(__version__, *words, *stamps, *data)


def export(run: Run) -> None:
    """The trained model for sentence-transformers, and how to use either."""
    from scripts.export import main as export_main

    output, options = run.output / "export", run.options
    without = [f"--without-{part}" for part in ("regions", "video") if getattr(options, f"without_{part}")]
    words = ["--model", str(run.final), "--to", options.to, "--output", str(output), *without]
    run.begin("export", "the trained model for other libraries", "scripts/export.py", words)
    marker = run.output / "exported.json"
    key = fingerprint(__version__, *words, file_fingerprint(run.final.parent / "run.json"))
    if output.is_dir() and marker.is_file() and json.loads(marker.read_text(encoding="utf-8"))["key"] == key:
        print(f"there already: {output}")
    else:
        call(export_main, [*words, "--overwrite"])
        write_json(marker, {"key": key})
    print(usage(run))


def usage(run: Run) -> str:
    """How to use what was made, in Python."""
    options, export = run.options, run.output / "export"
    told = [
        f"\nlook at {run.output / 'report.html'}, and use the model:\n",
        "  from mmembed import Embedder",
        f'  model = Embedder.from_pretrained("{run.final}")',
        f'  model.encode([{{"image": "{options.pictures}/NAME"}}], instruction="{options.find_text}")',
    ]
    if options.to == "st":
        told += [
            "\n  from sentence_transformers import SentenceTransformer",
            f'  model = SentenceTransformer("{export}")',
            f'  model.encode([{{"image": "{options.pictures}/NAME"}}], prompt="{options.find_text}")',
        ]
    return "\n".join(told)


def call(step: Main, words: Sequence[str]) -> None:
    """Do a step as its command does.

    Raises:
        StepError: it ended with another status than 0, and said why.
    """
    if (status := step(words)) != 0:
        raise StepError(status)


if __name__ == "__main__":
    sys.exit(main())
