"""Time encoding, training, ranking and the data pipeline against the plain way to the same numbers, as ratios.

Both ways must give the same numbers before they are timed, and then take turns, so that a busy machine slows both. Each
result has the medians and ranges of seconds and ratios, the memory, counters of the work done, a breakdown of the time,
and the useful arithmetic as a share of what a matrix product reaches in the same run. A workload whose numbers differ
is not timed: its result says so, and the others go on.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from mmembed.errors import InputError  # noqa: E402
from mmembed.files import write_json, write_text  # noqa: E402
from mmembed.progress import clock  # noqa: E402
from scripts.benchmark.catalogue import WORKLOADS, chosen  # noqa: E402
from scripts.benchmark.sizes import SIZES, Size  # noqa: E402

if TYPE_CHECKING:
    import torch

EXAMPLE = """sizes:
  tiny   seconds; to see that everything runs
  mid    hidden 256 x 4, vision 128 x 4, 64 pairs of 224 px image and text; half an hour on two cores
  2b     a whole Qwen2-VL-2B of random weights in bfloat16, for a GPU of 80 GB

example: python scripts/bench.py --workloads encode_mixed,train_lora --output bench.json --page bench.md"""


def bench(options: argparse.Namespace) -> dict[str, Any]:
    """Measure what the options ask for; the files are written after each workload.

    Raises:
        InputError: an unknown workload, a size for a GPU without one, or a file that cannot be written.
    """
    size = SIZES[options.size]
    names = chosen(options.workloads, size.left_out)
    for option, path in (("--output", options.output), ("--page", options.page)):
        if path is not None:
            check_writable(option, path)
    # takes seconds, which --help need not wait for
    import torch

    from mmembed.models.precision import whole_convolutions
    from scripts.benchmark.bench import Bench
    from scripts.benchmark.flops import ceiling
    from scripts.benchmark.machine import machine
    from scripts.benchmark.measuring import Conditions, add_use, attempt
    from scripts.benchmark.memory import release
    from scripts.benchmark.page import results_page

    device = device_for(size, options)
    under = Conditions(options.rounds, size.tolerance, size.gradient_tolerance, device)
    found: dict[str, Any] = {
        "machine": machine(device), "size": options.size, "rounds": options.rounds, "tolerance": size.tolerance,
        "gradient_tolerance": size.gradient_tolerance,
        "date": datetime.now(UTC).date().isoformat(), "ceiling": 0.0, "results": [],
    }  # fmt: skip
    for name in with_time_left(names):
        # again each time: on a busy machine one look may find it slow
        found["ceiling"] = max(found["ceiling"], ceiling(getattr(torch, size.dtype), device, size.squares))
        # ours rounds no convolution on a GPU, and the plain way must not either to be equal
        with whole_convolutions():
            found["results"].append(attempt(name, partial(WORKLOADS[name].make, Bench(size, device)), under))
        release()
        add_use(found["results"], found["ceiling"])
        write_json(options.output, found)
        if options.page is not None:
            write_text(options.page, results_page(found))
    return found


def device_for(size: Size, options: argparse.Namespace) -> "torch.device":
    """The device asked for; else a GPU for a size that is for one, and the CPU for the others.

    Raises:
        InputError: a GPU that is not there.
    """
    import torch

    kind = options.device or ("cuda" if size.gpu else "cpu")
    if kind == "cuda" and not torch.cuda.is_available():
        where, remedy = "--device cuda", "leave it out"
        if options.device is None:
            where = f"--size {options.size}"
            remedy = "take --size mid here, or ask for --device cpu, which takes hours and 30 GB"
        raise InputError(where, expected="a GPU", got="none that torch can use", remedy=remedy)
    return torch.device(kind)


def check_writable(option: str, path: Path) -> None:
    """Refuse a file that could not be written in the end.

    Raises:
        InputError: it is a folder, or its folder cannot be made or written.
    """
    try:
        if path.is_dir():
            raise IsADirectoryError("it is a folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise InputError(
            f"{option} {path}", expected="a file that can be written", got=error, remedy="name another place"
        ) from error


def with_time_left(names: Sequence[str]) -> Iterator[str]:
    """The workloads one by one, with a line on standard error before each."""
    started = time.monotonic()
    for number, name in enumerate(names):
        gone = time.monotonic() - started
        left = f", about {clock(gone / number * (len(names) - number))} left" if number else ""
        print(f"[{number + 1}/{len(names)}] {name}: {clock(gone)} gone{left}", file=sys.stderr)
        yield name


def list_workloads() -> None:
    """Say what there is, and what is required of it."""
    from scripts.benchmark.tables import rounded

    for name, entry in WORKLOADS.items():
        bounds = [
            f"at {one.size or 'every size'} {'>=' if one.at_least else '<='} {rounded(one.bound)} ({one.words})"
            for one in entry.required
        ]
        print(f"{name:24}{entry.what}" + (f"; required {', '.join(bounds)}" if bounds else ""))


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--output", type=Path, metavar="FILE.json", help="where the results go")
    made.add_argument("--page", type=Path, metavar="FILE.md", help="write them as a page too")
    made.add_argument("--workloads", metavar="A,B", help="only these, e.g. encode_images,train_lora (default: all)")
    made.add_argument("--list", action="store_true", help="list the workloads and what is required of them")
    made.add_argument("--size", choices=tuple(SIZES), default="mid", help="of model and inputs (default: mid)")
    made.add_argument("--rounds", type=int, default=5, metavar="N", help="timed runs of each (default: 5)")
    made.add_argument("--device", choices=("cpu", "cuda"), help="where models run (default: as the size is meant)")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0 is success, 2 something in the input, or a workload that failed."""
    read = parser()
    options = read.parse_args(argv)
    if options.list:
        list_workloads()
        return 0
    if options.output is None:
        read.error("argument --output: say where the results go")
    if options.rounds < 1:
        read.error(f"argument --rounds: expected 1 or more, got {options.rounds}")
    try:
        found = bench(options)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    from rich.console import Console

    from scripts.benchmark.tables import results_table

    Console(width=None if sys.stdout.isatty() else 110).print(results_table(found["results"]))
    failed = [result for result in found["results"] if result["error"]]
    for result in failed:
        print(f"{result['workload']} failed: {result['error']}", file=sys.stderr)
    return 2 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
