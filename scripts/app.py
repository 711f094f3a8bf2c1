"""Open a page in the browser that searches an index: by words, picture, change, click, box, mask, clip or page."""

import argparse
import os
import signal
import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from eval.opened import add_speed, speed_of
from mmembed.errors import InputError

EXAMPLE = """\
The index is a folder of scripts/embed.py, made with the same model; with --regions a hit says which object was found:

  python scripts/embed.py --model runs/demo/final --input items.jsonl --output runs/items --regions
  python scripts/app.py --model runs/demo/final --index runs/items

make app does both for the demo. Instructions are a YAML file of kinds of query (words, picture, change, region, clip,
page), each with the words that the model was trained with; on the page they can be changed."""


def serve(options: argparse.Namespace) -> None:
    """Do what the options say; returns when the person stops it."""
    if not (Path(options.index) / "manifest.json").is_file():
        remedy = "make one with scripts/embed.py, or run make app for the demo's"
        raise InputError("--index", expected="a folder of embeddings", got=f"'{options.index}'", remedy=remedy)
    if find_spec("gradio") is None:
        remedy = "pip install 'mmembed[app]'"
        raise InputError("gradio", expected="the package that makes the page", got="none installed", remedy=remedy)
    from mmembed.serve.instructions import read_instructions
    from mmembed.serve.search import Searcher

    overrides = {} if options.dtype is None else {"dtype": options.dtype}
    instructions = {} if options.instructions is None else read_instructions(options.instructions)
    searcher = Searcher.open(
        options.model, options.index, table=options.table, profile=options.profile, adapter=options.adapter,
        device=options.device, speed=speed_of(options.speed), **overrides,
    )  # fmt: skip
    from mmembed.serve.page import Page

    with TemporaryDirectory(prefix="mmembed-app-") as uploads:
        # gradio leaves what people gave behind in a folder of its own
        os.environ["GRADIO_TEMP_DIR"] = uploads
        page = Page(searcher, instructions)
        address = page.launch(host=options.host, port=options.port, share=options.share)
        for note in searcher.notes:
            print(f"otherwise than when the index was made: {note}", file=sys.stderr)
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        print(f"open {address} (Ctrl+C stops it)", flush=True)
        try:
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            page.blocks.close(verbose=False)


def make_parser() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, metavar="DIR_OR_ID", help="a run's final/, or a Hub id")
    parser.add_argument("--index", required=True, metavar="DIR", help="a folder of scripts/embed.py")
    parser.add_argument("--table", type=Path, metavar="TABLE", help="the index's item table, if it moved")
    parser.add_argument("--instructions", type=Path, metavar="YAML", help="usual instruction of each kind of query")
    parser.add_argument("--profile", metavar="NAME", help="how a released checkpoint embeds, e.g. vlm2vec")
    parser.add_argument("--adapter", metavar="DIR_OR_ID", help="LoRA or DoRA to load onto it")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), help="default: as the model was saved")
    add_speed(parser)
    parser.add_argument("--device", metavar="NAME", help="cpu, cuda, ... (default: a GPU if there is one)")
    parser.add_argument(
        "--host", default="127.0.0.1", help="0.0.0.0 lets others in your network look (default: %(default)s)"
    )
    parser.add_argument("--port", type=int, default=7860, help="default: %(default)s")
    parser.add_argument("--share", action="store_true", help="also by a public address of gradio's, over the internet")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0 is success, 2 something in the input."""
    try:
        serve(make_parser().parse_args(argv))
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
