"""Make training triplets for composed retrieval from captions: picture, instruction, caption of the changed picture.

That is how InstructCIR trains (arXiv:2412.05756): no picture of the target is needed. For each record a kind of edit is
drawn by the seed, a language model writes instruction and modified caption as strict JSON, and filters take what is
usable; each rejection is counted. Answers are kept beside the output (.answers) as they come: a run that was killed
goes on where it stopped, other filters cost no answers, and the output is whole or not there.
"""

import argparse
import json
import logging
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import rich.box
import rich.table
from rich.console import Console

from data_prep.converters import refuse_outside
from data_prep.writers import Writer
from data_prep.writers.answers import Answers, in_order
from data_prep.writers.filters import REASONS, Filters
from data_prep.writers.options import add_writer_options, writer_of
from data_prep.writers.prompts import edit_kinds, triplet_messages, triplet_version
from data_prep.writers.records import read_captions
from data_prep.writers.triplets import (
    CLIP_BAND,
    Triplet,
    drawn_kind,
    judged,
    read_weights,
    within_band,
    without_repeats,
)
from mmembed.errors import InputError
from mmembed.files import file_fingerprint, whole_file, write_json
from mmembed.progress import track

Together: TypeAlias = Callable[[Sequence[Triplet]], list[bool]]
"""Whether each of some triplets passes."""

EXAMPLE = """examples:
  python data_prep/make_cir_triplets.py data/demo/pair_caption.jsonl --output data/demo/triplets.jsonl \\
      --writer rules --limit 1000
  python data_prep/make_cir_triplets.py captions.jsonl --output triplets.jsonl --writer openai \\
      --url http://localhost:8000/v1 --model Qwen/Qwen3-8B --parallel 32 --clip ViT-B-32-quickgelu:openai
  python data_prep/make_cir_triplets.py captions.jsonl --output triplets.jsonl --writer rules --dry-run"""


def show_request(options: argparse.Namespace) -> int:
    """Print what would be asked for the first record."""
    (record,) = read_captions(options.captions, 1)
    kind = drawn_kind(options.seed, record.id, read_weights(options.weights))
    print("\n".join(message["content"] for message in triplet_messages(record.caption, kind)))
    return 0


def make(options: argparse.Namespace, filters: Filters, writer: Writer) -> int:
    """Do what the options say; 0 is triplets written, 1 none that passed the filters."""
    records = read_captions(options.captions, options.limit)
    for record in records:
        # before anything is asked: prepare.py would put the triplet aside
        refuse_outside(record.image, f"{options.captions}: record {record.id}: image")
    weights = read_weights(options.weights)
    kinds = [drawn_kind(options.seed, record.id, weights) for record in records]
    answers = Answers(options.output.with_suffix(".answers"))
    requests = (triplet_messages(record.caption, kind) for record, kind in zip(records, kinds, strict=True))
    calls = (partial(answers.of_writer, writer, messages) for messages in requests)
    found = track(in_order(calls, options.parallel), "triplets", len(records))
    kept, rejected = list[Triplet](), Counter[str]()
    for triplet in judged(records, kinds, found, filters, writer):
        if isinstance(triplet, Triplet):
            kept.append(triplet)
        else:
            rejected[triplet] += 1
    for reason, step in later_filters(options).items():
        passed = [triplet for triplet, passes in zip(kept, step(kept), strict=True) if passes]
        rejected[reason] += len(kept) - len(passed)
        kept = passed
    asked, of_kind = Counter(kinds), Counter(triplet.edit_type for triplet in kept)
    report = {
        "input": {"path": str(options.captions), "fingerprint": file_fingerprint(options.captions)},
        "writer": dict(writer.facts), "prompt_version": triplet_version(), "seed": options.seed, "weights": weights,
        "filters": asdict(filters) | ({"clip": options.clip, "clip_band": options.clip_band} if options.clip else {}),
        "records": len(records), "asked_now": answers.asked, "kept": len(kept),
        "rejected": {reason: rejected[reason] for reason in REASONS},
        "edit_types": {kind: {"asked": asked[kind], "kept": of_kind[kind]} for kind in weights},
    }  # fmt: skip
    return write(options, kept, report)


def later_filters(options: argparse.Namespace) -> dict[str, Together]:
    """The filters that look at all triplets together, by the reason each gives."""
    repeats: dict[str, Together] = {"again for this picture": without_repeats}
    if not options.clip:
        return repeats
    band = partial(within_band, model=options.clip, profile=options.clip_profile or None, band=options.clip_band)
    return {"outside the CLIP band": band, **repeats}


def write(options: argparse.Namespace, kept: Sequence[Triplet], report: dict[str, Any]) -> int:
    """Write the triplets and the report, and print what became of the answers."""
    report_path = options.output.with_suffix(".report.json")
    # an old one would name other bytes
    report_path.unlink(missing_ok=True)
    if kept:
        with whole_file(options.output) as part, part.open("w", encoding="utf-8") as file:
            for triplet in kept:
                file.write(json.dumps(asdict(triplet), ensure_ascii=False) + "\n")
        report["output"] = file_fingerprint(options.output)
    write_json(report_path, report)
    show(report)
    if not kept:
        print("no answer passed the filters: nothing is written but the report", file=sys.stderr)
    print(*([options.output] if kept else []), report_path, sep="\n")
    return 0 if kept else 1


def show(report: Mapping[str, Any]) -> None:
    """Print how many answers were kept, and how many each filter rejected."""
    table = rich.table.Table(box=rich.box.SIMPLE)
    table.add_column("answers")
    table.add_column("count", justify="right")
    for name, count in {"kept": report["kept"], **report["rejected"]}.items():
        table.add_row(name, f"{count}")
    table.add_row("all", f"{report['records']}")
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def make_parser() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "captions", type=Path, metavar="CAPTIONS",
        help='.jsonl of {"id", "image", "caption"}, or a prepared table of pairs of a picture and its caption',
    )  # fmt: skip
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="where the triplets go, .jsonl")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="draws the kinds of edits (0)")
    parser.add_argument("--weights", metavar="KIND=W,...", help=f"of the kinds: {', '.join(edit_kinds())} (each 1)")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N records")
    parser.add_argument("--dry-run", action="store_true", help="show one request, and stop")
    add_writer_options(parser)
    what = parser.add_argument_group("what is kept")
    for field in fields(Filters):
        option, usual = f"--{field.name.replace('_', '-')}", field.default
        what.add_argument(option, type=type(usual), default=usual, metavar="N", help=f"{_HELP[field.name]} ({usual})")
    what.add_argument("--clip", metavar="MODEL", help="dual encoder whose text side compares the captions; else none")
    what.add_argument("--clip-profile", default="clip", metavar="NAME", help="how it embeds (clip); empty for a run")
    what.add_argument(
        "--clip-band", type=float, nargs=2, default=CLIP_BAND, metavar=("LOW", "HIGH"),
        help=f"cosines of caption and modified caption that are kept {CLIP_BAND}",
    )  # fmt: skip
    return parser


_HELP = {
    "max_words": "most words of an instruction",
    "min_change": "share of the words that must have changed, more than",
    "max_restated": "share of the modified caption in the instruction at which it restates the target",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0 is triplets written, 1 none that passed the filters, 2 something in the input."""
    parser = make_parser()
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    if options.limit is not None and options.limit < 1:
        parser.error(f"argument --limit: expected 1 or more, got {options.limit}")
    try:
        if options.output.suffix != ".jsonl":
            raise InputError("--output", expected="a .jsonl file", got=f"'{options.output}'", remedy="rename it")
        if options.output.resolve() == options.captions.resolve():
            raise InputError("--output", expected="another file than CAPTIONS", got="the same", remedy="rename it")
        low, high = options.clip_band
        if not -1 <= low < high <= 1:
            raise InputError("--clip-band", expected="-1 <= LOW < HIGH <= 1", got=f"{low} {high}", remedy="swap them")
        if not options.clip and (low, high) != CLIP_BAND:
            raise InputError("--clip-band", expected="--clip beside it", got="none", remedy="name a dual encoder")
        filters = Filters(**{field.name: getattr(options, field.name) for field in fields(Filters)})
        return show_request(options) if options.dry_run else make(options, filters, writer_of(options))
    except InputError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
