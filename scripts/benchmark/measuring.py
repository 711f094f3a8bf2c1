"""How a workload is measured: once untimed to compare, count and look at the memory, then in turns with the plain way.

The two take turns, so that a busy machine slows both, and what counts is the ratio within one run.
"""

import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any, TypeAlias

import torch
from torch import Tensor

from mmembed.counters import counting
from mmembed.errors import InputError
from mmembed.timers import timing
from mmembed.training.room import is_out_of_memory
from scripts.benchmark.flops import synchronise
from scripts.benchmark.memory import Memory, peak_memory

Run: TypeAlias = Callable[[], Tensor]
"""Does the work once and gives what it computed, to be compared."""
CPU = torch.device("cpu")


@dataclass
class Comparison:
    """A workload, ready to run.

    Args:
        ours: our way.
        plain: the plain way to the same outcome; None where there is none, or it cannot run here.
        rows: items or pairs of one run; 0 where that says nothing.
        useful: counts the floating-point operations that no way can do without.
        facts: what else is found out, once; called last.
        parts: whether the time is broken down.
        gradient: whether the outcome is a gradient, whose smallest numbers are sums that rounding decides.
        timed: rounds at most; with 0 the first run, which compares, is timed too.
        note: what a reader must know, e.g. why the plain way did not run.
        options: which options are on.
    """

    ours: Run
    plain: Run | None = None
    rows: int = 0
    useful: Callable[[], int] | None = None
    facts: Callable[[], dict[str, Any]] = dict
    parts: bool = False
    gradient: bool = False
    timed: int | None = None
    note: str = ""
    options: str = ""


@dataclass(frozen=True)
class Conditions:
    """What all workloads of a run are measured under.

    Args:
        rounds: timed runs of each.
        tolerance: how far outcomes may differ, in parts of the largest number.
        gradient_tolerance: the same of gradients, in parts of their length.
        device: where the models are.
    """

    rounds: int
    tolerance: float
    gradient_tolerance: float
    device: torch.device = field(default=CPU)


def unmeasured(name: str, error: str = "") -> dict[str, Any]:
    """A workload's entry in the results, with nothing measured yet.

    Its keys: ``ours``, ``plain`` and ``ratio`` (plain / ours) are medians over ``rounds``, in seconds, and ``spread``
    has the smallest and largest of each. Of the first run, which is not timed: ``difference`` of the outcomes,
    ``counters`` of ours, the memory of both in MiB (:class:`scripts.benchmark.memory.Memory`). Of ours: ``rows`` of a
    run, ``useful_gflops``, ``breakdown`` (seconds of each part), ``facts``, ``options``, ``note``. ``mfu`` and
    ``plain_mfu`` are shares of the ceiling. ``load_before`` is the machine's load average before the workload,
    ``error`` why it failed.
    """
    memory = ("peak_mb", "rise_mb", "plain_peak_mb", "plain_rise_mb")
    numbers = ("ours", "plain", "ratio", "difference", "useful_gflops", "mfu", "plain_mfu", "load_before", *memory)
    return {
        "workload": name, **dict.fromkeys(numbers), "spread": dict.fromkeys(("ours", "plain", "ratio")), "rounds": 0,
        "rows": 0, "counters": {}, "breakdown": {}, "facts": {}, "options": "", "note": "", "error": error,
    }  # fmt: skip


def attempt(name: str, make: Callable[[], Comparison], under: Conditions) -> dict[str, Any]:
    """The entry of a workload that is made and measured; where that fails, it says why."""
    load = round(os.getloadavg()[0], 2)
    try:
        found = measure(name, make(), under)
    except (InputError, RuntimeError, MemoryError) as error:
        # on a CPU torch has no type of its own for want of memory
        if not isinstance(error, InputError) and not is_out_of_memory(error):
            raise
        found = unmeasured(name, (str(error) or type(error).__name__).splitlines()[0])
    return found | {"load_before": load}


def measure(name: str, work: Comparison, under: Conditions) -> dict[str, Any]:
    """One workload's entry in the results, :func:`unmeasured` but for the first run if the ways do not agree."""
    seconds, seen = _first(name, work, under)
    found = unmeasured(name) | {"rows": work.rows, "options": work.options, "note": work.note} | seen
    if found["error"]:
        return found
    rounds = under.rounds if work.timed is None else min(under.rounds, work.timed)
    columns = _columns([_turn(work, under.device, number) for number in range(rounds)] or [seconds])
    return found | {
        **{key: median(values) if values else None for key, values in columns.items()},
        "spread": {key: [min(values), max(values)] if values else None for key, values in columns.items()},
        "rounds": len(columns["ours"]),
        "useful_gflops": None if work.useful is None else work.useful() / 1e9,
        "breakdown": breakdown(work.ours, under.device) if work.parts else {},
        "facts": work.facts(),
    }


def difference(outcome: Tensor, wanted: Tensor, *, gradient: bool = False) -> float:
    """The largest difference in parts of the largest number wanted; of a gradient, the same of their lengths."""
    away = outcome - wanted
    return float(away.norm() / wanted.norm()) if gradient else float(away.abs().max() / wanted.abs().max())


def add_use(results: list[dict[str, Any]], ceiling: float) -> None:
    """Say of each result which share of the ceiling its useful operations reach, ours and plain."""
    for result in results:
        for key, name in (("mfu", "ours"), ("plain_mfu", "plain")):
            known = result["useful_gflops"] is not None and result[name] is not None
            result[key] = result["useful_gflops"] * 1e9 / result[name] / ceiling if known else None


def timed(run: Run, device: torch.device) -> tuple[float, Tensor]:
    """Wall time of one run, and what it computed."""
    synchronise(device)
    started = time.perf_counter()
    outcome = run()
    synchronise(device)
    return time.perf_counter() - started, outcome


def breakdown(run: Run, device: torch.device) -> dict[str, float]:
    """Seconds of each part of the work in a run of its own, which costs the timed ones nothing, and of the rest."""
    with timing() as parts:
        whole, _ = timed(run, device)
    return {**parts, "other": max(0.0, whole - sum(parts.values())), "whole": whole}


def memory_of(run: Run, seen: Memory) -> dict[str, float]:
    """The memory of a run: of its own process where it has one, else what was seen of this one."""
    return asdict(getattr(run, "memory", seen))


def _first(name: str, work: Comparison, under: Conditions) -> tuple[tuple[float, float | None], dict[str, Any]]:
    """Seconds of the first run of each, and what it shows; the outcomes are gone when the timed runs begin."""
    with counting() as counters, peak_memory(under.device) as memory:
        ours, outcome = timed(work.ours, under.device)
    seen: dict[str, Any] = {"counters": dict(counters), **memory_of(work.ours, memory)}
    if work.plain is None:
        return (ours, None), seen
    with peak_memory(under.device) as memory:
        plain, wanted = timed(work.plain, under.device)
    seen |= {f"plain_{key}": value for key, value in memory_of(work.plain, memory).items()}
    found = difference(outcome, wanted, gradient=work.gradient)
    # JSON has no numbers that are none
    seen["difference"] = found if math.isfinite(found) else None
    seen["error"] = _why_not(name, found, under.gradient_tolerance if work.gradient else under.tolerance)
    return (ours, plain), seen


def _turn(work: Comparison, device: torch.device, number: int) -> tuple[float, float | None]:
    """Seconds of both; who goes first changes from round to round."""
    if work.plain is None:
        return timed(work.ours, device)[0], None
    if number % 2:
        plain = timed(work.plain, device)[0]
        return timed(work.ours, device)[0], plain
    return timed(work.ours, device)[0], timed(work.plain, device)[0]


def _columns(times: list[tuple[float, float | None]]) -> dict[str, list[float]]:
    both = [(own, other) for own, other in times if other is not None]
    return {
        "ours": [own for own, _ in times],
        "plain": [other for _, other in both],
        "ratio": [other / own for own, other in both],
    }


def _why_not(name: str, found: float, tolerance: float) -> str:
    # not a number is not equal either
    if found <= tolerance:
        return ""
    expected = f"outcomes equal to {tolerance:g}"
    return str(InputError(name, expected=expected, got=f"{found:.3g}", remedy="only what is equal is timed"))
