"""Rewrite composed queries into descriptions of what they look for, as CIReVL does (arXiv:2310.09291).

A captioner describes the picture of each query, a language model writes the description of the changed picture, and
any model of texts and pictures searches with it: ``eval/run.py --rewritten DIR``. Captions and answers are kept in DIR
as they come: a run that was killed goes on, and nothing is asked twice. Where an answer has no description, the query
is the bare change; such fallbacks are marked and counted.
"""

import argparse
import json
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from data_prep.writers import Captioner, Writer
from data_prep.writers.answers import Answers, in_order
from data_prep.writers.options import add_captioner_options, add_writer_options, captioner_of, writer_of
from data_prep.writers.prompts import prompts, rewriting_messages, rewriting_version
from data_prep.writers.rewriting import description, reference_and_change
from mmembed.data.tables import read_items
from mmembed.errors import InputError
from mmembed.files import file_fingerprint, whole_file, write_json
from mmembed.items import JOINS, Image
from mmembed.progress import track

CAPTIONS, ANSWERS = "captions.jsonl", "answers.jsonl"
"""Files of the output folder that hold what was asked."""
EXAMPLE = """examples:
  python data_prep/rewrite_queries.py --set data/demo/test/composed --task composed --output runs/demo/rewritten \\
      --captioner nearest --captioner-model runs/demo/final --captions data/demo/pair_caption.jsonl \\
      --captioner-instruction "describe the image" --writer rules --prompt structural
  python data_prep/rewrite_queries.py --set data/circo/val --task val --join change --output runs/cirevl \\
      --captioner transformers --captioner-model Salesforce/blip2-flan-t5-xxl \\
      --writer openai --url http://localhost:8000/v1 --model Qwen/Qwen3-8B --parallel 16 --prompt structural"""


class Composed(NamedTuple):
    """A query: its reference and its change."""

    query_id: str
    reference: Image
    change: str


def read_queries(folder: Path, join: str | None, limit: int | None = None) -> list[Composed]:
    """The composed queries of a retrieval set.

    Raises:
        InputError: no queries, or one that is not a picture with a change; the query is named.
    """
    found = [path for suffix in (".jsonl", ".parquet") if (path := folder / f"queries{suffix}").exists()]
    if len(found) != 1:
        raise InputError(
            folder, expected="a retrieval set with queries.jsonl", got="none", remedy="prepare it, or check --set"
        )
    queries = list[Composed]()
    for query_id, item in read_items(found[0]):
        if limit is not None and len(queries) == limit:
            break
        try:
            queries.append(Composed(query_id, *reference_and_change(item, join)))
        except InputError as error:
            raise error.within(f"{found[0]}: query {query_id}") from None
    return queries


def rewritten(
    queries: Sequence[Composed], captions: Sequence[str], answers: Iterator[str], *, keep_reference: bool
) -> Iterator[dict[str, Any]]:
    """The rows of the output."""
    for query, caption, answer in zip(queries, captions, answers, strict=True):
        text = description(answer)
        row = {
            "query_id": query.query_id, "caption": caption, "change": query.change,
            "text": text or query.change, "fallback": text is None,
        }  # fmt: skip
        yield row | ({"keep_reference": True} if keep_reference else {})


def run(options: argparse.Namespace, captioner: Captioner, writer: Writer) -> int:
    """Do what the options say."""
    queries = read_queries(options.set, options.join, options.limit)
    known = Answers(options.output / CAPTIONS)
    calls = (partial(known.of_captioner, captioner, query.reference) for query in queries)
    parallel = options.parallel if options.captioner == "openai" else 1
    captions = list(track(in_order(calls, parallel), "captions", len(queries)))
    answers = Answers(options.output / ANSWERS)
    requests = (rewriting_messages(options.prompt, cap, q.change) for cap, q in zip(captions, queries, strict=True))
    written = in_order((partial(answers.of_writer, writer, messages) for messages in requests), options.parallel)
    found = track(written, "descriptions", len(queries))
    rows = list(rewritten(queries, captions, found, keep_reference=options.keep_reference))
    return write(options, rows, {"captioner": dict(captioner.facts), "writer": dict(writer.facts)})


def write(options: argparse.Namespace, rows: Sequence[Mapping[str, Any]], who: Mapping[str, Any]) -> int:
    """Write the rows and who wrote them, and say how many are fallbacks."""
    path = options.output / f"{options.task}.jsonl"
    manifest = path.with_suffix(".json")
    # an old one would name other bytes
    manifest.unlink(missing_ok=True)
    with whole_file(path) as part, part.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    fallbacks = sum(row["fallback"] for row in rows)
    about = {
        "task": options.task, "set": str(options.set), **who, "prompt": options.prompt,
        "prompt_version": rewriting_version(options.prompt), "join": options.join,
        "keep_reference": options.keep_reference, "queries": len(rows), "fallbacks": fallbacks,
        "outputs": file_fingerprint(path),
    }  # fmt: skip
    write_json(manifest, about)
    print(f"{len(rows)} queries rewritten, {fallbacks} of them fallbacks: the answer had no description")
    print(path, manifest, sep="\n")
    return 0


def make_parser() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--set", type=Path, required=True, metavar="DIR", help="a prepared set with composed queries")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="where TASK.jsonl and all answers go")
    parser.add_argument("--task", metavar="NAME", help="row of the benchmark (default: the set's folder)")
    parser.add_argument("--join", choices=sorted(JOINS), help="how several texts of a query become one change")
    parser.add_argument(
        "--prompt", choices=list(prompts().rewriting.kinds), required=True,
        help="structural: CIRCO; contextual: CIRR; fashion: FashionIQ; short, focus: GeneCIS",
    )  # fmt: skip
    parser.add_argument(
        "--keep-reference", action="store_true",
        help="the query stays picture and text, for a Sum composer to add up (GeneCIS' focus on attributes)",
    )  # fmt: skip
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N queries, for a look: cannot be scored")
    parser.add_argument("--dry-run", action="store_true", help="show one request, its caption left open, and stop")
    add_captioner_options(parser)
    add_writer_options(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0 is queries rewritten, 2 something in the input."""
    parser = make_parser()
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    if options.limit is not None and options.limit < 1:
        parser.error(f"argument --limit: expected 1 or more, got {options.limit}")
    options.task = options.task or options.set.resolve().name
    try:
        if f"{options.task}.jsonl" in (CAPTIONS, ANSWERS):
            raise InputError("--task", expected="a row's name", got=f"'{options.task}'", remedy="it is taken in DIR")
        if options.captions and options.captions.resolve() == (options.output / CAPTIONS).resolve():
            expected = f"another file than {CAPTIONS} of --output, where captions are kept as they come"
            raise InputError("--captions", expected=expected, got="the same", remedy="rename it")
        if options.dry_run:
            (query,) = read_queries(options.set, options.join, 1)
            print(*(turn["content"] for turn in rewriting_messages(options.prompt, "(its caption)", query.change)))
            return 0
        return run(options, captioner_of(options), writer_of(options))
    except InputError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
