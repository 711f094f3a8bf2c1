"""Export a model to other tools: a folder that sentence-transformers, transformers or vLLM open by themselves.

What is written is opened there and compared with the model on every kind of input that it reads, with an instruction
and without; only if all vectors are the same does the folder take its name. What the target cannot hold is refused.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mmembed.errors import InputError

if TYPE_CHECKING:
    from mmembed.serve.export import Exported

EXAMPLE = """examples:
  python scripts/export.py --model runs/demo/final --to st --without-regions --without-video --output runs/demo/st
  python scripts/export.py --model DIR --to vllm --output DIR
  python scripts/export.py --model HUB/ID --override positions=mrope --to hf --output DIR
then, in Python: SentenceTransformer("runs/demo/st").encode([{"image": "cat.jpg", "text": "same, but blue"}])"""
PAGE_WIDTH = 100


def report(done: "Exported") -> Table:
    """The differences by input."""
    table = Table(box=box.SIMPLE_HEAD, title="differences of unit vectors in float32")
    table.add_column("input")
    table.add_column("largest", justify="right")
    for name, value in done.compared.items():
        table.add_row(escape(name), f"{value:.1e}")
    return table


def overrides_of(given: Sequence[str]) -> dict[str, object]:
    """Settings of the backbone as the command line says them."""
    made = {}
    for word in given:
        name, sign, value = word.partition("=")
        if not sign:
            raise InputError("--override", expected="NAME=VALUE", got=word, remedy="e.g. positions=mrope")
        made[name] = yaml.safe_load(value)
    return made


def export(options: argparse.Namespace) -> "Exported":
    """Do what the options say."""
    # takes seconds, which --help and a wrong option need not wait for
    from mmembed import Embedder
    from mmembed.serve.export import export_model, refuse_taken

    refuse_taken(options.output, overwrite=options.overwrite)
    model = Embedder.from_pretrained(
        options.model, adapter=options.adapter, profile=options.profile, **overrides_of(options.override)
    )
    return export_model(
        model, options.to, options.output, without_regions=options.without_regions,
        without_video=options.without_video, overwrite=options.overwrite,
    )  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0 is success, 2 something in the input."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, metavar="DIR_OR_ID", help="a run's final/, or a Hub id")
    parser.add_argument(
        "--to", required=True, choices=("st", "hf", "vllm"),
        help="st: sentence-transformers 6; hf: transformers, the base with its adapter merged; vllm: a server",
    )  # fmt: skip
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="a new folder")
    parser.add_argument("--profile", metavar="NAME", help="how a released checkpoint embeds, e.g. vlm2vec")
    parser.add_argument("--adapter", metavar="DIR_OR_ID", help="LoRA or DoRA to load onto it; it is merged")
    parser.add_argument(
        "--override", action="append", default=[], metavar="NAME=VALUE",
        help="open the model with another setting of its backbone: what is exported, and compared, is that model",
    )  # fmt: skip
    parser.add_argument("--without-regions", action="store_true", help="leave the region encoder behind")
    parser.add_argument("--without-video", action="store_true", help="leave the reading of clips behind")
    parser.add_argument("--overwrite", action="store_true", help="replace a folder that an export wrote")
    options = parser.parse_args(argv)
    try:
        done = export(options)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    console = Console(width=None if sys.stdout.isatty() else PAGE_WIDTH)
    console.print(report(done))
    for note in done.notes:
        console.print(f"- {escape(note)}")
    console.print(f"exported: {escape(str(done.directory))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
