"""Time our encoding and training against a plain transformers loop of the same weights, as ratios of one run.

Both must give the same numbers before they are timed, and take turns, so that a busy machine slows both.
"""

import argparse
import os
import platform
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, TypeAlias

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import rich.box  # noqa: E402
import torch  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402
from torch import Tensor  # noqa: E402

from mmembed.counters import counting  # noqa: E402
from mmembed.errors import InputError, nearest  # noqa: E402
from mmembed.files import write_json  # noqa: E402

TOLERANCE = 1e-5
Run: TypeAlias = Callable[[], Tensor]
"""Does the work once and gives what it computed."""


def measure(name: str, ours: Run, plain: Run, rounds: int) -> dict[str, Any]:
    """One workload's entry in the results; the first, untimed round checks equality, counts work and sees memory."""
    with counting() as counters, peak_memory() as ours_peak:
        outcome = ours()
    with peak_memory() as plain_peak:
        wanted = plain()
    difference = float((outcome - wanted).abs().max() / wanted.abs().max().clamp(min=1))
    if not difference <= TOLERANCE:
        expected = f"outcomes equal to {TOLERANCE}"
        raise InputError(name, expected=expected, got=difference, remedy="time only what is equal")
    times = [(seconds(ours), seconds(plain)) for _ in range(rounds)]
    columns = {
        "ours": [own for own, _ in times],
        "plain": [other for _, other in times],
        "ratio": [other / own for own, other in times],
    }
    return {
        "workload": name,
        **{key: median(values) for key, values in columns.items()},
        "spread": {key: [min(values), max(values)] for key, values in columns.items()},
        "peak_mb": memory_of(ours, ours_peak[0]),
        "plain_peak_mb": memory_of(plain, plain_peak[0]),
        "difference": difference,
        "counters": dict(counters),
    }


def memory_of(run: Run, seen: float) -> float:
    """The most memory of a run, in MiB: of its own process where it has one, else what was seen of this one."""
    from scripts.parsing import Apart

    return round(run.peak_mb, 1) if isinstance(run, Apart) else seen


def seconds(run: Run) -> float:
    """Wall time of one run."""
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


@contextmanager
def peak_memory() -> Iterator[list[float]]:
    """The most memory of the process inside the block, in MiB (Linux), which is told when the block ends."""
    peak = [0.0]
    # the kernel forgets the most it saw before
    Path("/proc/self/clear_refs").write_text("5")
    yield peak
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    peak[0] = round(int(status["VmHWM"].split()[0]) / 2**10, 1)


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    versions = {name: version(name) for name in ("torch", "transformers")}
    return {
        "system": platform.platform(terse=True),
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        **versions,
    }


def results_table(results: Sequence[dict[str, Any]]) -> Table:
    """The results, a workload a line."""
    headers = ("workload", "plain s", "ours s", "plain/ours", "range", "plain MiB", "ours MiB")
    table = Table(*headers, box=rich.box.SIMPLE)
    for result in results:
        low, high = result["spread"]["ratio"]
        numbers = (f"{result['plain']:.3f}", f"{result['ours']:.3f}", f"{result['ratio']:.2f}", f"{low:.2f}-{high:.2f}")
        table.add_row(result["workload"], *numbers, f"{result['plain_peak_mb']:.0f}", f"{result['peak_mb']:.0f}")
    return table


def chosen(names: str | None, known: Iterable[str]) -> list[str]:
    """The workloads asked for, else all."""
    wanted = list(known) if names is None else names.split(",")
    for name in wanted:
        if name not in known:
            remedy = nearest(name, known)
            raise InputError("--workloads", expected="a known workload", got=f"'{name}'", remedy=remedy)
    return wanted


def bench(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure what the options ask for, written after each workload."""
    # takes seconds, which --help need not wait for
    from scripts.workloads import SIZES, WORKLOADS, Bench

    results: list[dict[str, Any]] = []
    for name in chosen(options.workloads, WORKLOADS):
        results.append(measure(name, *WORKLOADS[name](Bench(SIZES[options.size])), options.rounds))
        write_json(options.output, {"machine": machine(), "size": options.size, "results": results})
    return results


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0 is success, 2 something in the input, or outcomes that differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, metavar="FILE.json", help="where the results go")
    parser.add_argument("--workloads", metavar="A,B", help="only these, e.g. encode_images,train_whole")
    parser.add_argument("--size", choices=("tiny", "mid"), default="mid", help="of model and inputs (default: mid)")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="timed runs of each (default: 5)")
    options = parser.parse_args(argv)
    if options.rounds < 1:
        parser.error(f"argument --rounds: expected 1 or more, got {options.rounds}")
    try:
        results = bench(options)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    Console(width=None if sys.stdout.isatty() else 100).print(results_table(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
