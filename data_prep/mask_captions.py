"""Mask the keywords of captions of one's own: a table that LinCIR trains on (arXiv:2312.01998), no picture needed.

FILE has a caption a line (.txt), or an object a line with the caption in one of its fields (.jsonl). An empty caption
is left out, and counted. The tagger rules works offline; spacy is what LinCIR was trained with, where it is installed.
Whole words are masked; str_replace is what the published code does, which cuts words in pieces.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from data_prep.keywords import TAGGERS, tagger_of
from data_prep.masking import MASKINGS, Masking, cleaned
from mmembed.data.tables import write_pairs
from mmembed.errors import InputError
from mmembed.items import Pair
from mmembed.progress import track

EXAMPLE = "example: python data_prep/mask_captions.py captions.txt --output data/mine/captions.parquet --tagger spacy"


def read_captions(path: Path, column: str) -> list[str]:
    """The captions of a file, empty ones among them.

    Raises:
        InputError: no such file, or a line that is no object with that field.
    """
    try:
        # a caption may hold marks that Unicode calls ends of lines
        with path.open(encoding="utf-8") as file:
            lines = [line.removesuffix("\n") for line in file]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(path, expected="a readable text file", got=error, remedy="check the path") from error
    return [_field(path, i, line, column) for i, line in enumerate(lines)] if path.suffix == ".jsonl" else lines


def masked(captions: Sequence[str], masking: Masking) -> Iterator[Pair]:
    """Each caption masked, and itself; those are left out of which nothing is left without placeholders."""
    for number, caption in enumerate(track(captions, "mask captions")):
        if cleaned(caption, masking.placeholder):
            yield replace(masking.pair(caption), query_id=f"{number:07d}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0 is success, 2 something in the input."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("captions", type=Path, metavar="FILE", help="captions, .txt or .jsonl")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="the table, .parquet or .jsonl")
    parser.add_argument("--column", default="text", help="field of the caption in .jsonl (default: text)")
    parser.add_argument("--tagger", choices=tuple(TAGGERS), default="rules", help="tells keywords (default: rules)")
    parser.add_argument("--masking", choices=tuple(MASKINGS), default="words", help="default: words")
    parser.add_argument("--placeholder", default="$", help="stands for keywords (default: $)")
    options = parser.parse_args(argv)
    try:
        captions = read_captions(options.captions, options.column)
        masking = Masking(tagger_of(options.tagger, "--tagger"), options.masking, options.placeholder)
        pairs = list(masked(captions, masking))
        if not pairs:
            raise InputError(options.captions, expected="captions", got="none", remedy="check the file")
        write_pairs(options.output, pairs)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{options.output}: {len(pairs)} captions, {len(captions) - len(pairs)} empty ones left out")
    return 0


def _field(path: Path, number: int, line: str, column: str) -> str:
    try:
        value = json.loads(line)[column]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: line {number + 1}", expected=f"an object with the field {column}", got=error,
            remedy="mend the line, or say --column",
        ) from error  # fmt: skip
    if not isinstance(value, str | None):
        raise InputError(
            f"{path}: line {number + 1}: {column}", expected="a caption", got=repr(value),
            remedy="mend the line, or say --column",
        )  # fmt: skip
    return value or ""


if __name__ == "__main__":
    sys.exit(main())
