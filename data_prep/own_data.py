"""Tables and retrieval sets out of a folder of pictures and a CSV that names them.

Reads and checks every row and every picture, joins rows that say the same, holds some out so
that no picture and no text stands on both sides, and writes below the output's own_data/ the
tables that training reads and the sets that an evaluation ranks, and benchmark.yaml beside it.
What is there already of the same files and options is not made again.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from data_prep.own.made import Choice, Made, make
from data_prep.own.rows import Columns
from data_prep.own.written import FIND_PICTURE, FIND_TEXT, Wording
from mmembed.errors import InputError

EXAMPLE = """examples:
  python data_prep/own_data.py --pictures photos --csv products.csv --picture-column file --text-column title
  python data_prep/own_data.py --pictures photos --csv pairs.csv --picture-column after --query-picture-column before"""


def add_data(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """The options that name data and say how they are read; what was added."""
    data = parser.add_argument_group("the data").add_argument
    held = parser.add_argument_group("what is held out of training").add_argument
    usual = FIND_PICTURE["text_to_picture"]
    return [
        data("--pictures", type=Path, required=True, metavar="DIR", help="folder of the pictures"),
        data("--csv", type=Path, required=True, metavar="FILE", help="names a picture in each row"),
        data("--picture-column", required=True, metavar="NAME", help="column of their file names"),
        data("--text-column", nargs="+", default=[], metavar="NAME",
             help="column of words; several are joined to one text, a line each"),
        data("--each-text", action="store_true", help="several --text-column are a text of their own each"),
        data("--query-picture-column", metavar="NAME",
             help="column of pictures to ask with; with words beside it the words are a change"),
        data("--instruction-column", metavar="NAME", help="what tells the task, where rows differ in it"),
        data("--negative-column", nargs="+", default=[], metavar="NAME", help="pictures that look right and are wrong"),
        data("--find-picture", metavar="WORDS", help=f'instruction to find pictures ("{usual}"); "" is none'),
        data("--find-text", default=FIND_TEXT, metavar="WORDS", help=f'to find words ("{FIND_TEXT}"); "" is none'),
        data("--encoding", metavar="NAME", help="of the CSV (default: found out, and stated)"),
        data("--delimiter", metavar="CHAR", help="of the CSV (default: found out, and stated)"),
        data("--skip-bad", action="store_true", help="leave rows out that cannot be used, and say so"),
        data("--limit", type=int, metavar="N", help="only the first N rows"),
        held("--held-out", type=int, metavar="N", help="at least N pairs (default: a tenth, 20 to 1000)"),
        held("--held-out-csv", type=Path, metavar="FILE", help="a CSV of them, with the same columns"),
        held("--seed", type=int, default=0, metavar="N", help="another one holds out others (default: 0)"),
    ]  # fmt: skip


def words_of(actions: Sequence[argparse.Action], options: argparse.Namespace) -> list[str]:
    """The options that differ from their defaults, as one would type them."""
    words: list[str] = []
    for action in actions:
        value = getattr(options, action.dest)
        if value != action.default:
            values = [] if action.nargs == 0 else value if isinstance(value, list) else [value]
            words += [action.option_strings[0], *map(str, values)]
    return words


def choice_of(options: argparse.Namespace) -> Choice:
    """What the options choose."""
    columns = Columns(
        options.picture_column, tuple(options.text_column), options.each_text, options.query_picture_column,
        options.instruction_column, tuple(options.negative_column),
    )  # fmt: skip
    return Choice(
        options.pictures, options.csv, columns, Wording(options.find_picture, options.find_text),
        encoding=options.encoding, delimiter=options.delimiter, skip_bad=options.skip_bad, limit=options.limit,
        held_out=options.held_out, held_out_csv=options.held_out_csv, seed=options.seed,
    )  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0 is success, 2 something in the input."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_data(parser)
    parser.add_argument("--output", type=Path, metavar="DIR", help="default: runs/NAME of the CSV")
    options = parser.parse_args(argv)
    try:
        made = make(choice_of(options), options.output or Path("runs") / options.csv.stem)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    show(made)
    return 0


def show(made: Made) -> None:
    """Print what was made, or found."""
    print(*made.told, sep="\n")
    for name, number in made.train.items():
        print(f"{'wrote' if made.anew else 'there already'}: {made.folder / f'{name}.jsonl'} ({number} rows)")
    for name, number in made.test.items():
        print(f"{'wrote' if made.anew else 'there already'}: {made.folder / 'test' / name} ({number} queries)")


if __name__ == "__main__":
    sys.exit(main())
