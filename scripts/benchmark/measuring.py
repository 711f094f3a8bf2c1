"""How a workload is measured: once untimed to compare, count and look at the memory, then in turns with the plain way.

The two take turns, so that a busy machine slows both, and what counts is the ratio within one run.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median
from typing import Any, TypeAlias

import torch
from torch import Tensor

from mmembed.counters import counting
from mmembed.errors import InputError
from mmembed.timers import timing
from scripts.benchmark.flops import synchronise
from scripts.benchmark.memory import peak_memory

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
        timed: rounds at most; with 0 the first round, which compares, is timed too.
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
        device: where the models are.
    """

    rounds: int
    tolerance: float
    device: torch.device = field(default=CPU)


def measure(name: str, work: Comparison, under: Conditions) -> dict[str, Any]:
    """One workload's entry in the results.

    Raises:
        InputError: the ways do not agree.
    """
    with counting() as counters, peak_memory(under.device) as ours_peak:
        first, outcome = timed(work.ours, under.device)
    plain_first, wanted, plain_peak = 0.0, None, [0.0]
    if work.plain is not None:
        with peak_memory(under.device) as plain_peak:
            plain_first, wanted = timed(work.plain, under.device)
        _refuse_other(name, difference(outcome, wanted, gradient=work.gradient), under.tolerance)
    rounds = under.rounds if work.timed is None else min(under.rounds, work.timed)
    times = [_turn(work, under.device) for _ in range(rounds)] or [(first, plain_first if work.plain else None)]
    seconds = _columns(times)
    return {
        "workload": name,
        **{key: median(values) if values else None for key, values in seconds.items()},
        "spread": {key: [min(values), max(values)] if values else None for key, values in seconds.items()},
        "rounds": len(times),
        "rows": work.rows,
        "peak_mb": memory_of(work.ours, ours_peak[0]),
        "plain_peak_mb": None if work.plain is None else memory_of(work.plain, plain_peak[0]),
        "difference": None if wanted is None else difference(outcome, wanted, gradient=work.gradient),
        "counters": dict(counters),
        "useful_gflops": None if work.useful is None else work.useful() / 1e9,
        "breakdown": breakdown(work.ours, under.device) if work.parts else {},
        "facts": work.facts(),
        "options": work.options,
        "note": work.note,
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


def memory_of(run: Run, seen: float) -> float:
    """The most memory of a run, in MiB: of its own process where it has one, else what was seen of this one."""
    return round(getattr(run, "peak_mb", seen), 1)


def _turn(work: Comparison, device: torch.device) -> tuple[float, float | None]:
    ours, _ = timed(work.ours, device)
    return ours, None if work.plain is None else timed(work.plain, device)[0]


def _columns(times: list[tuple[float, float | None]]) -> dict[str, list[float]]:
    both = [(own, other) for own, other in times if other is not None]
    return {
        "ours": [own for own, _ in times],
        "plain": [other for _, other in both],
        "ratio": [other / own for own, other in both],
    }


def _refuse_other(name: str, found: float, tolerance: float) -> None:
    # not a number is not equal either
    if not found <= tolerance:
        expected = f"outcomes equal to {tolerance}"
        raise InputError(name, expected=expected, got=found, remedy="time only what is equal")
