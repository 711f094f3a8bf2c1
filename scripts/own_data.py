"""Fine-tune on your own data: from a folder of pictures and a CSV to a trained, evaluated, exported model.

Makes tables and held-out sets of the CSV, writes a recipe for their size, evaluates the model
as it is, trains it, evaluates it again, lays both side by side, and exports the result, for
sentence-transformers say. Before each step stands the command that does it alone. What is done
already is not done again.
"""

import argparse
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from data_prep.own_data import add_data, words_of
from mmembed.errors import InputError, nearest
from mmembed.recipe import Recipe
from scripts.own_steps import (
    STEPS,
    Run,
    StepError,
    compare,
    evaluate_before,
    export,
    make_data,
    make_recipe,
    train,
)

EXAMPLE = """examples:
  python scripts/own_data.py --pictures photos --csv products.csv --picture-column file --text-column title \\
      --model Qwen/Qwen2-VL-2B-Instruct
  python scripts/own_data.py --pictures photos --csv products.csv --picture-column file --text-column title \\
      --model runs/demo/final --train all --quick

Every setting of the recipe is an option too, e.g. --stages.main.optim.lr 5e-5."""
QUICK_ROWS, QUICK_STEPS = 300, 10


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0 is success, 1 a step that failed, 2 something in the input, 143 a run told to stop."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    data = add_data(parser)
    add_training(parser)
    options, overrides = parser.parse_known_args(argv)
    output = options.output or Path("runs") / options.csv.stem
    if options.quick:
        output = output.with_name(f"{output.name}-quick")
        options.limit = QUICK_ROWS if options.limit is None else options.limit
        options.steps = QUICK_STEPS if options.steps is None else options.steps
    started = time.monotonic()
    try:
        refuse_unknown(overrides, vars(options))
        walk(Run(options, overrides, output, words_of(data, options)))
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    except StepError as error:
        return error.status
    print(f"\n{time.monotonic() - started:.0f} s in all")
    return 0


def add_training(parser: argparse.ArgumentParser) -> None:
    """The options that name the model and say what is done with it."""
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


def refuse_unknown(overrides: Sequence[str], options: Iterable[str]) -> None:
    """Refuse what is neither an option nor a setting before anything is read, for a step that needs it may not come.

    Raises:
        InputError: names it, and the nearest that is known.
    """
    settings = [field.name for field in fields(Recipe)]
    known = [f"--{name.replace('_', '-')}" for name in (*options, *settings)]
    for word in (word for number, word in enumerate(overrides) if word.startswith("--") or not number):
        name = word.partition("=")[0].partition(".")[0]
        if name.removeprefix("--") not in settings:
            remedy = nearest(name, known)
            raise InputError(word, expected="an option, or a setting of the recipe", got="neither", remedy=remedy)


def walk(run: Run) -> None:
    """Do the steps up to the last one asked for."""
    until = STEPS.index(run.options.until)
    made = make_data(run)
    if until == 0:
        return
    base = make_recipe(run, made)
    later = (
        partial(evaluate_before, run, base),
        partial(train, run),
        partial(compare, run),
        partial(export, run, made),
    )
    for step in later[: until - 1]:
        step()


if __name__ == "__main__":
    sys.exit(main())
