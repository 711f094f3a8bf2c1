"""Search an index from a terminal: by words, picture, change, place in a picture, clip or page; or by a whole table.

Rankings are exact. The model is the one that made the index, unless another place of it is named.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from eval.opened import add_model, open_model
from mmembed.errors import InputError

if TYPE_CHECKING:
    from rich.table import Table

    from mmembed import Item
    from mmembed.serve.search import Hit

EXAMPLE = """\
The index is a folder of scripts/embed.py:

  python scripts/embed.py --model runs/demo/final --input items.jsonl --output runs/items
  python scripts/search.py --index runs/items "a red circle" --instruction "Find a picture that shows this."
  python scripts/search.py --index runs/items --image photo.jpg --box 10 20 90 80
  python scripts/search.py --index runs/items --image photo.jpg "the same, but blue" --top 3
  python scripts/search.py --index runs/items --input queries.jsonl --json > hits.jsonl"""


def search(options: argparse.Namespace) -> None:
    """Do what the options say; the hits go to the terminal, or as JSON to standard output."""
    # takes seconds, which --help and a wrong option need not wait for
    from mmembed.models.ahead import usual_workers
    from mmembed.serve.search import Index, Searcher

    index = Index(options.index, table=options.table)
    asked = queries_of(options)
    options.model = options.model or index.manifest["model"]
    searcher = Searcher(open_model(options), index)
    for note in searcher.notes:
        print(f"otherwise than when the index was made: {note}", file=sys.stderr)
    workers = usual_workers(searcher.model.device) if options.workers is None else options.workers
    queries = list(asked.values())
    found = searcher.search_all(queries, options.top, batch_tokens=options.batch_tokens, workers=workers)
    for name, hits in zip(asked, found, strict=True):
        if options.json:
            print(json.dumps({"query": name, "hits": [as_json(hit) for hit in hits]}, ensure_ascii=False))
        else:
            show(name, hits, by_region=index.is_by_region)


def queries_of(options: argparse.Namespace) -> "dict[str, Item]":
    """What is asked, by name: the rows of a table by their ids, or one query of what the options give by its words.

    Raises:
        InputError: nothing is asked, a query besides a table, or a row that cannot be used.
    """
    from mmembed import Item
    from mmembed.data.tables import ItemTable
    from scripts.embed import check_ids

    given = {"video": options.video, "image": options.image, "pdf": options.pdf, "text": options.words}
    query: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if options.input is None:
        if not query:
            remedy = 'give words, e.g. "a red circle", --image, --video, --pdf, or --input for a table of queries'
            raise InputError("query", expected="something to search for", got="nothing", remedy=remedy)
        if options.pdf is not None:
            query["page"] = options.page or 1
        if options.box:
            query["regions"] = [{"box": box} for box in options.box]
        one = Item.of(query, options.instruction)
        return {in_words(one): one}
    if query:
        raise InputError("--input", expected="a table, or one query", got="both", remedy="leave one out")
    rows = ItemTable(options.input)
    check_ids(rows)
    return {name: Item.of(item, options.instruction) for name, item in rows}


def as_json(hit: "Hit") -> dict[str, Any]:
    """A hit for a program."""
    return {"id": hit.id, "score": hit.score, "region": hit.region}


def show(name: str, hits: "Sequence[Hit]", *, by_region: bool) -> None:
    """Print the hits of a query, best first."""
    from eval.printing import console

    console().print(hits_table(name, hits, by_region=by_region))


def hits_table(name: str, hits: "Sequence[Hit]", *, by_region: bool) -> "Table":
    """The hits of a query as a table; which region was found only where regions were embedded."""
    import rich.box
    from rich.markup import escape
    from rich.table import Table

    made = Table(title=escape(name), title_justify="left", box=rich.box.SIMPLE)
    for header in ("#", "score", *(["region"] if by_region else [])):
        made.add_column(header, justify="right")
    made.add_column("id", overflow="fold")
    made.add_column("what it is", no_wrap=True, overflow="ellipsis")
    for place, hit in enumerate(hits, start=1):
        region = ["whole" if hit.region == 0 else str(hit.region)] if by_region else []
        made.add_row(str(place), f"{hit.score:.4f}", *region, escape(hit.id), escape(in_words(hit.item)))
    return made


def in_words(item: "Item") -> str:
    """An item on one line: its words, and its media by the names of their files."""
    from mmembed.media.sources import source_name

    parts = [part if isinstance(part, str) else Path(source_name(part.source)).name for part in item.content]
    return " ".join(" ".join(parts).split())


def make_parser() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("words", nargs="?", metavar="WORDS", help="words to search for, or what a picture changes by")
    parser.add_argument("--index", type=Path, required=True, metavar="DIR", help="a folder of scripts/embed.py")
    parser.add_argument("--table", type=Path, metavar="TABLE", help="the index's item table, if it moved")
    parser.add_argument("--top", type=int, default=10, metavar="K", help="hits of a query (default: 10)")
    parser.add_argument("--json", action="store_true", help="a line of JSON for each query, for programs")
    query = parser.add_argument_group("the query")
    query.add_argument("--image", metavar="FILE", help="a picture")
    query.add_argument(
        "--box", type=float, nargs=4, action="append", metavar=("X0", "Y0", "X1", "Y1"),
        help="a place in it, in its own pixels; may be repeated",
    )  # fmt: skip
    query.add_argument("--video", metavar="FILE", help="a clip, or a folder of frames")
    query.add_argument("--pdf", metavar="FILE", help="a page of a document")
    query.add_argument("--page", type=int, metavar="N", help="which of its pages (default: 1)")
    query.add_argument("--instruction", metavar="WORDS", help="for queries that bring none")
    query.add_argument("--input", type=Path, metavar="TABLE", help='many queries: .jsonl or .parquet of {"id": ...}')
    add_model(parser, required=False)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0 is success, 2 something in the input."""
    parser = make_parser()
    options = parser.parse_args(argv)
    if options.box and options.image is None:
        parser.error("--box goes with --image")
    if options.page is not None and options.pdf is None:
        parser.error("--page goes with --pdf")
    try:
        search(options)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
