"""What the commands share."""

import argparse
import os
from pathlib import Path


def is_one_of_several() -> bool:
    """Whether torchrun or SLURM started this process beside others."""
    return next((os.environ[name] for name in ("WORLD_SIZE", "SLURM_NTASKS") if name in os.environ), "1") != "1"


def is_first_process() -> bool:
    """Whether this process is the one that speaks: the only one, or the first that torchrun or SLURM started."""
    return next((os.environ[name] for name in ("RANK", "SLURM_PROCID") if name in os.environ), "0") == "0"


def add_data_root(parser: argparse.ArgumentParser) -> None:
    """The option ``--data-root``, the same in every command."""
    parser.add_argument(
        "--data-root",
        type=Path,
        default=Path(os.environ.get("MMEMBED_DATA", "data")),
        metavar="DIR",
        help="where the prepared data lie (default: $MMEMBED_DATA, else ./data)",
    )
