"""What the commands share."""

import argparse
import os
from pathlib import Path


def add_data_root(parser: argparse.ArgumentParser) -> None:
    """The option ``--data-root``, the same in every command."""
    parser.add_argument(
        "--data-root",
        type=Path,
        default=Path(os.environ.get("MMEMBED_DATA", "data")),
        metavar="DIR",
        help="where the prepared data lie (default: $MMEMBED_DATA, else ./data)",
    )
