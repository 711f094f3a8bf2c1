"""Give a saved or exported model to others: one commit of a Hub repository, with a model card."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mmembed.errors import InputError
from mmembed.files import write_text

EXAMPLE = "example: python scripts/push.py --model runs/demo/final --repo me/demo --licence apache-2.0 --dry-run"


def push(options: argparse.Namespace) -> str:
    """Do what the options say; what there is to say about it."""
    # takes seconds, which --help does not need
    from mmembed.serve.hub import About, plan, upload

    about = About(
        options.licence, options.licence_link, options.scores, options.recipe, options.dataset, options.of
    )  # fmt: skip
    planned = plan(options.model, options.repo, about)
    for warning in planned.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if options.card is not None:
        write_text(options.card, planned.card)
    if options.dry_run:
        listed = "\n".join(f"{size:>15,}  {name}" for name, size in planned.files.items())
        total = f"{sum(planned.files.values()):>15,}  bytes in {len(planned.files)} files would go to {planned.repo_id}"
        card = f"card: {options.card}" if options.card is not None else f"\n{planned.card}"
        return f"{listed}\n{total}\n{card}"
    done = upload(planned, private=options.private, branch=options.branch)
    opened = f"from_pretrained('{options.repo}', revision='{done.commit}')"
    return f"pushed {len(planned.files)} files: {done.url}\nopen them: {opened}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0 is success, 2 something in the input or on the Hub."""
    parser = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLE)
    parser.add_argument(
        "--model", type=Path, required=True, metavar="DIR", help="a run, its final/, or what scripts/export.py wrote"
    )
    parser.add_argument("--repo", required=True, metavar="OWNER/NAME", help="on the Hub; made if it is not there")
    parser.add_argument("--licence", metavar="ID", help="as the Hub names it, e.g. apache-2.0; its base's is suggested")
    parser.add_argument("--licence-link", metavar="URL", help="where a licence called other is read")
    parser.add_argument("--scores", type=Path, nargs="+", default=(), metavar="FILE", help="scores.json of evaluations")
    parser.add_argument(
        "--recipe", type=Path, metavar="FILE", help="recipe.yaml it was trained by (default: that of its run)"
    )
    parser.add_argument("--dataset", nargs="+", default=(), metavar="ID", help="Hub ids of what it was trained on")
    parser.add_argument("--of", metavar="DIR_OR_ID", help="what an export was made of (default: as it says)")
    parser.add_argument("--private", action="store_true", help="a new repository is for its owner alone")
    parser.add_argument("--branch", metavar="NAME", help="made if it is not there (default: main)")
    parser.add_argument("--card", type=Path, metavar="FILE", help="write the card here, too")
    parser.add_argument("--dry-run", action="store_true", help="upload nothing; list the files and print the card")
    options = parser.parse_args(argv)
    try:
        print(push(options))
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
