"""Prepare sources: download or find them, unpack their media, convert their rows, write tables and retrieval sets.

What is done already is left alone, so that the command goes on where it was killed.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from data_prep.engine.clones import Repositories
from data_prep.engine.listing import print_sources, say_downloads
from data_prep.engine.manifest import is_short, sentence
from data_prep.engine.preparation import MAX_BAD, Wishes, prepare, prepare_set
from data_prep.source import Source, resolve, source_names
from mmembed.commands import add_data_root
from mmembed.errors import InputError

__all__ = ["Wishes", "prepare"]

EXAMPLE = """examples:
  python data_prep/prepare.py mmeb_v2_train --dry-run
  python data_prep/prepare.py mmeb_train/OK-VQA --limit 1000
  python data_prep/prepare.py mmeb_eval --source /copies --source /more/copies
  python data_prep/prepare.py cirr circo --source /copies"""


def run(source: Source, repositories: Repositories, limit: int | None, wishes: Wishes) -> int:
    """Prepare the sets of a source one by one; one that fails does not keep the others."""
    status = 0
    for row in source.sets.values():
        name = f"{source.name}/{row.name}"
        try:
            entry = prepare_set(source, row, repositories, limit, wishes)
        except Exception as error:
            # whatever a library raised: the other sets do not depend on it
            what = f"{error}" if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
            print(f"{name}: not prepared\n  {what}", file=sys.stderr)
            status = 2
        else:
            print(f"{name}: {sentence(entry)}")
            status = max(status, 1 if is_short(entry) else 0)
    return status


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0 is everything whole, 1 a set with fewer or more rows than expected, 2 one not prepared."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sources", nargs="*", metavar="SOURCE[/SET]", help="what to prepare; --list names all there is")
    add_data_root(parser)
    parser.add_argument(
        "--source", type=Path, action="append", default=[], metavar="DIR",
        help="folder of local copies; the Hub is not asked then; may be given several times",
    )  # fmt: skip
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N rows of each set, for a look")
    parser.add_argument("--list", action="store_true", help="what there is, and what of it is prepared")
    parser.add_argument("--dry-run", action="store_true", help="say what would be downloaded, and stop")
    parser.add_argument(
        "--max-bad", type=float, default=MAX_BAD, metavar="SHARE",
        help=f"share of the rows of a table of pairs that may be put aside (default: {MAX_BAD})",
    )  # fmt: skip
    parser.add_argument(
        "--allow-missing", action="store_true",
        help="leave queries and targets out of composed retrieval whose media are missing; scores are marked then",
    )  # fmt: skip
    parser.add_argument("--overwrite", action="store_true", help="prepare again what is prepared")
    parser.add_argument("--update", action="store_true", help="take the newest commits of what no source pins")
    options = parser.parse_args(argv)
    if not options.sources and not options.list:
        parser.error("expected a source; --list names all there is")
    if options.limit is not None and options.limit < 1:
        parser.error(f"argument --limit: expected 1 or more, got {options.limit}")
    if not 0 <= options.max_bad <= 1:
        parser.error(f"argument --max-bad: expected 0 to 1, got {options.max_bad}")
    for folder in options.source:
        if not folder.is_dir():
            parser.error(f"argument --source: expected a folder of copies, got no folder '{folder}'")
    if options.data_root.exists() and not options.data_root.is_dir():
        parser.error(f"argument --data-root: expected a folder, got the file '{options.data_root}'")
    try:
        sources = [source for name in options.sources or source_names() for source in resolve(name)]
        if options.list:
            print_sources(sources, options.data_root)
            return 0
        copies = tuple(folder.absolute() for folder in options.source)
        repositories = Repositories(options.data_root.resolve(), copies, options.update)
        if options.dry_run:
            return say_downloads(sources, repositories)
        wishes = Wishes(options.max_bad, options.overwrite, allow_missing=options.allow_missing)
        return max(run(source, repositories, options.limit, wishes) for source in sources)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
