"""The options of the command that converts formats, of which each format knows some."""

import argparse
from pathlib import Path
from typing import Any

from data_prep.formats.drops import DROPS
from data_prep.formats.registry import FORMATS


def _names(value: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in value.split(",") if name.strip())


def _number(value: str) -> int:
    if not value.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number from 0, got '{value}'")
    return int(value)


def _positive(value: str) -> int:
    if (number := _number(value)) < 1:
        raise argparse.ArgumentTypeError("expected 1 or more, got 0; leave it out for all")
    return number


READING: dict[str, dict[str, Any]] = {
    "corpus": {"type": Path, "nargs": "+", "required": True, "metavar": "FILE",
               "help": "JSON lines of the documents that the rows name by id; several are looked into together"},
    "items": {"type": Path, "metavar": "FILE",
              "help": "write all documents of the corpus, those too that no row names, to this item table"},
    "instructions": {"type": Path, "metavar": "FILE",
                     "help": "M-BEIR's query_instructions.tsv; without it queries have no instruction"},
    "prompt": {"type": _number, "default": 0, "metavar": "N",
               "help": "which of the instructions for a dataset, the first is 0 (default: 0)"},
    "columns": {"type": _names, "metavar": "NAMES",
                "help": "columns of query, positive and negatives, in this order, as anchor,positive,negative_1"},
}  # fmt: skip
"""Options of import, of which each format knows some."""
WRITING: dict[str, dict[str, Any]] = {
    "corpus": {"type": Path, "required": True, "metavar": "FILE", "help": "JSON lines to write the documents to"},
    "items": {"type": Path, "metavar": "FILE",
              "help": "item table of the corpus: its documents are written first, whether or not a pair names them"},
    "instructions": READING["instructions"],
    "prompt": READING["prompt"],
    "make_ids": {"action": "store_true",
                 "help": "make ids for queries and documents that have none; equal documents have one id"},
    "dataset_id": {"type": _number, "metavar": "N", "help": "first part of the ids that --make-ids makes"},
    "field_names": {"choices": ("code", "readme"), "default": "code",
                    "help": "what documents' fields are called: text, as Tevatron's code reads them, or document_text, "
                    "as its README says (default: code)"},
    "negatives": {"type": _number, "metavar": "N", "help": "keep the first N negatives of each row"},
    "embed_media": {"action": "store_true", "help": "write pictures into the rows, not their paths"},
}  # fmt: skip
"""Options of export, of which each format knows some."""


def parser_of(about: str, example: str) -> argparse.ArgumentParser:
    """The options of ``data_prep/convert.py``, whose words and examples are given."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=about, epilog=example, formatter_class=raw)
    does = parser.add_subparsers(dest="does", required=True, metavar="{import,export,formats}")
    does.add_parser("formats", help="list what each format can hold")
    ways = {
        "import": ("a format's rows to a table of pairs", READING, "fields of the rows and documents to leave out"),
        "export": ("a table of pairs to a format's rows", WRITING, f"fields to leave out, of {', '.join(DROPS)}"),
    }
    for way, (words, known, drops) in ways.items():
        one = does.add_parser(way, help=words, description=f"{words}; each FORMAT has options of its own")
        formats = one.add_subparsers(dest="format", required=True, metavar="FORMAT")
        for name, form in FORMATS.items():
            options = formats.add_parser(name, help=form.about, description=form.about)
            _add_common(options, drops)
            if way == "export":
                options.add_argument("--fold-instruction", action="store_true", help="write instructions into texts")
                options.add_argument("--absolute-paths", action="store_true", help="write whole paths of media")
            for option in form.reading if way == "import" else form.writing:
                options.add_argument(f"--{option.replace('_', '-')}", **known[option])
    return parser


def _add_common(options: argparse.ArgumentParser, drops: str) -> None:
    options.add_argument("--input", type=Path, required=True, metavar="FILE", help="what is read")
    options.add_argument("--output", type=Path, required=True, metavar="FILE", help="what is written")
    options.add_argument("--drop", type=_names, action="extend", default=[], metavar="FIELDS", help=drops)
    options.add_argument(
        "--input-media", type=Path, metavar="DIR", help="what paths in the input are relative to (default: its folder)"
    )
    options.add_argument(
        "--output-media", type=Path, metavar="DIR",
        help="what paths in the output are relative to, a folder that holds all media (default: its folder)",
    )  # fmt: skip
    options.add_argument("--allow-missing-media", action="store_true", help="media need not be there")
    options.add_argument("--limit", type=_positive, metavar="N", help="only the first N rows")
    options.add_argument("--overwrite", action="store_true", help="replace outputs that are there")
