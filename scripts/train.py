"""Train a recipe: a YAML in configs/ (by name) or anywhere (by path), any setting overridden on the command line."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mmembed.commands import add_data_root, is_first_process
from mmembed.errors import DivergenceError, InputError, StoppedError, nearest
from mmembed.recipe import Recipe, read_recipe, run_recipe
from mmembed.settings import dump_yaml, make_parser
from scripts.miniature import miniature, prepare_data
from scripts.tables import check_data

# what a shell reports for a process that SIGTERM ended
TOLD_TO_STOP = 143
CONFIGS = Path(__file__).resolve().parent.parent / "configs"
EXAMPLES = """examples:
  python scripts/train.py --config demo.yaml
  python scripts/train.py --config demo.yaml --stages.pairs.optim.lr 5e-4 --output runs/slower
  python scripts/train.py --config demo.yaml --print_config
  python scripts/train.py --config vlm2vec_v2.yaml --miniature
  torchrun --nproc-per-node 8 scripts/train.py --config demo.yaml

A run that was stopped, however it was, goes on when the same command is given again.

Every setting of the recipe is an option: --seed, --embedder.pooler, --stages.NAME.steps, ...
--settings-help lists them all."""


def find_config(name: str) -> Path:
    """A path, else that name under configs/."""
    for path in (Path(name), CONFIGS / name, CONFIGS / f"{name}.yaml"):
        if path.is_file():
            return path
    known = [path.name for path in CONFIGS.glob("*.yaml")]
    raise InputError(
        "--config", expected="a path or a name under configs/", got=f"'{name}'", remedy=nearest(name, known)
    )


def chosen_recipe(options: argparse.Namespace, overrides: Sequence[str]) -> tuple[Recipe, Path]:
    """The recipe that the options name, and the folder of its data.

    With ``--miniature`` it is made small, and so are its data, unless only the settings are asked for.
    """
    path, data_root = find_config(options.config), options.data_root
    if not options.miniature:
        return read_recipe(path, overrides), data_root
    whole, data_root = read_recipe(path), data_root / "miniature"
    small = miniature(whole, data_root, overrides)
    if not getattr(options, "print_config", False):
        prepare_data(small, whole, data_root)
    return small, data_root


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0 is success, 1 a run that diverged, 2 something in the input, 143 a run told to stop."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--config", metavar="NAME|PATH", help="the recipe")
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="folder of the run (default: runs/NAME of the recipe)"
    )
    add_data_root(parser)
    parser.add_argument(
        "--resume", default="auto", metavar="auto|never|PATH",
        help="go on where the run stopped (auto, the default), begin it again, or go back to a checkpoint of it",
    )  # fmt: skip
    parser.add_argument("--overwrite", action="store_true", help="replace another run that stands in the folder")
    parser.add_argument(
        "--miniature", action="store_true",
        help="try the recipe small: random weights of its architecture, drawn miniatures of its data, two steps",
    )  # fmt: skip
    parser.add_argument(
        "--parts", action="store_true", help="train on sources that are prepared in part, by --limit say"
    )
    parser.add_argument("--print_config", action="store_true", help="print the resolved recipe and stop")
    parser.add_argument("--settings-help", action="store_true", help="list every setting of a recipe and stop")
    options, overrides = parser.parse_known_args(argv)
    if options.settings_help:
        make_parser(Recipe, prog="recipe").print_help()
        return 0
    if options.config is None:
        parser.error("--config is needed, for example --config demo.yaml")
    try:
        recipe, data_root = chosen_recipe(options, overrides)
        if options.print_config:
            print(dump_yaml(recipe), end="")
            return 0
        check_data(recipe, data_root, parts=options.parts or options.miniature)
        output = options.output or Path("runs") / recipe.name
        final, trained = run_recipe(
            recipe, output, data_root=data_root, resume=options.resume, overwrite=options.overwrite
        )  # fmt: skip
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    except DivergenceError as error:
        print(error, file=sys.stderr)
        return 1
    except StoppedError as error:
        print(error, file=sys.stderr)
        return TOLD_TO_STOP
    if is_first_process():
        print(f"{'trained' if trained else 'already trained'}: {final}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
