"""Embed an item table into shards of vectors; a run that was killed goes on where it stopped."""

import argparse
import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from eval.opened import add_model, open_model
from mmembed.data.tables import ItemTable
from mmembed.errors import InputError
from mmembed.files import file_fingerprint, fingerprint

if TYPE_CHECKING:
    from mmembed import Embedder
    from mmembed.index.embedding_store import Origin

EXAMPLE = "example: python scripts/embed.py --model runs/demo/final --input items.jsonl --output runs/items"


def check_ids(table: ItemTable) -> None:
    """Read every row once, so that a bad one is found before any time is spent on the others."""
    first: dict[str, int] = {}
    for row in range(len(table)):
        name, _ = table[row]
        if first.setdefault(name, row) != row:
            got = f"'{name}' again, first in {table.where(first[name])}"
            raise InputError(f"{table.where(row)}: id", expected="each id once", got=got, remedy="rename one")


def embed(options: argparse.Namespace) -> str:
    """Do what the options say; what there is to say about it."""
    # takes seconds, which --help and a wrong option need not wait for
    from mmembed.index.embedding_store import EmbeddingStore, fill
    from mmembed.index.region_rows import RegionRows
    from mmembed.models.ahead import usual_workers

    table = ItemTable(options.input)
    check_ids(table)
    rows = RegionRows(table, instruction=options.region_instruction) if options.regions else table
    model = open_model(options)
    starts = rows.starts if isinstance(rows, RegionRows) else None
    store = EmbeddingStore(
        options.output, origin_of(model, table, len(rows), options), starts=starts, overwrite=options.overwrite
    )
    call = {"instruction": options.instruction, "side": options.side}
    workers = usual_workers(model.device) if options.workers is None else options.workers
    encode = partial(model.encode, **call, batch_tokens=options.batch_tokens, workers=workers)
    embedded = fill(store, rows, encode)
    kind = "vectors" if options.regions else "rows"
    done = f"embedded {embedded} of {len(rows)} {kind}" if embedded else f"already embedded, all {len(rows)} {kind}"
    return f"{done}: {options.output}"


def origin_of(model: "Embedder", table: ItemTable, rows: int, options: argparse.Namespace) -> "Origin":
    """What makes the embeddings, and what a page that shows them has to know."""
    from mmembed.index.embedding_store import Origin
    from mmembed.models.identity import identity

    parts = identity(model)
    weights = fingerprint(parts.pop("weights"), parts.pop("adapter"))
    call = {"instruction": options.instruction, "side": options.side}
    if options.regions:
        call["region_instruction"] = options.region_instruction
    places = {"table": str(table.path.absolute()), "media_root": str(table.root.folder)}
    return Origin(
        model=options.model,
        input=str(options.input),
        weights=weights,
        settings=fingerprint(json.dumps(parts | call, sort_keys=True)),
        input_fingerprint=file_fingerprint(table.path),
        rows=rows,
        width=model.width,
        shard_rows=options.shard_rows,
        regions=options.regions,
        about=places | call | {"identity": parts},
    )


def make_parser() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLE)
    add_model(parser)
    parser.add_argument("--input", type=Path, required=True, metavar="TABLE", help='.jsonl or .parquet of {"id": ...}')
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder of shards and manifest.json")
    parser.add_argument("--instruction", metavar="WORDS", help="for items that bring none")
    parser.add_argument("--side", choices=("query", "target"), default="target", help="default: target")
    parser.add_argument(
        "--regions", action="store_true",
        help="one vector for each item without its regions, and one for each region of its pictures",
    )  # fmt: skip
    parser.add_argument("--region-instruction", metavar="WORDS", help="of those with a region, in place of their own")
    parser.add_argument("--overwrite", action="store_true", help="replace the embeddings of another model or input")
    parser.add_argument("--shard-rows", type=int, default=4096, metavar="N", help="rows of a shard (default: 4096)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0 is success, 2 something in the input."""
    parser = make_parser()
    options = parser.parse_args(argv)
    if options.region_instruction is not None and not options.regions:
        parser.error("--region-instruction goes with --regions")
    try:
        print(embed(options))
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
