"""The results as a page: ``docs/results/performance.md``."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from scripts.benchmark.catalogue import WORKLOADS, Required
from scripts.benchmark.tables import number, percent, ratio, rounded, span

PARTS = ("decode", "preprocess", "vision", "language", "loss", "backward", "optimiser", "wait", "other")
INTRO = """# Performance

Our way beside the plain way to the same numbers, measured in one run on one machine. `make bench` writes this
page and `docs/results/bench.json`. The plain way is the loop that people write on transformers: its processor and its
forward, batches of 16 in input order, padded; for training, cached gradients (arXiv:2101.06983) in chunks of 8. Where a
workload is not of this kind, its row says what plain is.

The first run of both is not timed: it shows that they compute the same. Of embeddings and scores the *difference* is
the largest one, in parts of the largest number, and at most {tolerance:g}; of training steps it is the norm of the
difference of the two gradients in parts of the gradient's norm, and at most {gradient_tolerance:g}. A workload that
differs more has failed, and is not timed. Then the two take turns, and who goes first changes from round to round.
Seconds are medians over the rounds and belong to this machine; *plain/ours*, how many times faster ours is, is what to
look at. It is the median of the ratios of each round, and the *range* is the smallest and the largest of them.

Memory and counters are of the first run, when caches are cold and chat templates not yet rendered; ours goes first
there and so bears what both load. *More MiB* is the most memory in use above what was in use before the run, of the
process or of a GPU."""
NO_GPU = """No data-centre GPU was at hand for this page. The command is ready for one, and refuses to run without:
`python scripts/bench.py --size 2b --output bench_2b.json --page bench_2b.md` measures a whole Qwen2-VL-2B of random
weights in bfloat16. Asked of it there are 45 % of the ceiling in training and 55 % in encoding."""


def results_page(found: Mapping[str, Any]) -> str:
    """The page of what ``scripts/bench.py`` found, in Markdown."""
    results = {result["workload"]: result for result in found["results"]}
    sections = [
        INTRO.format(tolerance=found["tolerance"], gradient_tolerance=found["gradient_tolerance"]),
        "## Machine\n\n" + _machine(found),
        "## What is required\n\n" + _required(found["size"], results),
        "## Workloads\n\n" + _workloads(results.values()),
        "## Where the time goes\n\n" + _parts(results.values()),
        "## Use of the hardware\n\n" + _use(found, results.values()),
        "## Work counted\n\n" + _counters(results.values()),
        "## Beside the ratios\n\n" + _facts(results.values()),
        "## A GPU\n\n" + _gpu(found, results.values()),
        "## Again\n\n" + _again(found),
    ]
    return "\n\n".join(sections) + "\n"


def _machine(found: Mapping[str, Any]) -> str:
    lines = {**found["machine"], "size": found["size"], "ceiling": f"{found['ceiling'] / 1e9:.1f} GFLOP/s"}
    return table(("what", "value"), lines.items()) + "\n\n" + _load(found)


def _load(found: Mapping[str, Any]) -> str:
    # the workload before has kept all threads busy
    most = found["machine"]["threads"] + 0.5
    busy = [f"`{one['workload']}` ({one['load_before']:.1f})" for one in found["results"] if one["load_before"] > most]
    if not busy:
        return f"Nothing else kept the machine busy: its load average was at most {most:g} before each workload."
    words = f"**The machine was busy**: its load average was above {most:g} before {', '.join(busy)}"
    return f"{words}, by other programs or by workers of the workload before."


def _required(size: str, results: Mapping[str, Mapping[str, Any]]) -> str:
    rows = []
    for name, entry in WORKLOADS.items():
        for one in entry.required:
            met = one.met(results.get(name, {}), size)
            measured = "-" if met is None else rounded(one.found(results[name]))
            words = {True: "yes", False: "no", None: "not measured"}[met]
            rows.append((f"`{name}`", one.size or "every", one.words, _bound(one), measured, words))
    return table(("workload", "at size", "what", "required", "measured", "met"), rows)


def _bound(required: Required) -> str:
    words = f"{'at least' if required.at_least else 'at most'} {rounded(required.bound)}"
    return words if required.aim is None else f"{words} (aim {rounded(required.aim)})"


def _workloads(results: Iterable[Mapping[str, Any]]) -> str:
    headers = (
        "workload", "what is done", "rounds", "plain, s", "ours, s", "plain/ours", "range", "plain, more MiB",
        "ours, more MiB", "difference", "options that are on",
    )  # fmt: skip
    rows = [
        (
            f"`{one['workload']}`", WORKLOADS[one["workload"]].what, one["rounds"], number(one["plain"], 3),
            number(one["ours"], 3), ratio(one), span(one["spread"]["ratio"]), number(one["plain_rise_mb"], 0),
            number(one["rise_mb"], 0), rounded(one["difference"]), one["options"] or "-",
        )
        for one in results
    ]  # fmt: skip
    failed = [f"**`{one['workload']}` failed**: {one['error']}." for one in results if one["error"]]
    return "\n\n".join([table(headers, rows), *failed])


def _parts(results: Iterable[Mapping[str, Any]]) -> str:
    broken = [one for one in results if one["breakdown"]]
    used = [part for part in PARTS if any(part in one["breakdown"] for one in broken)]
    rows = [
        (f"`{one['workload']}`", *(_share(one["breakdown"], part) for part in used), f"{one['breakdown']['whole']:.3f}")
        for one in broken
    ]
    words = "Shares of one more run of ours in per cent, and its seconds; a part inside another is counted once.\n\n"
    return words + table(("workload", *used, "all, s"), rows)


def _share(parts: Mapping[str, float], part: str) -> str:
    return percent(parts[part] / parts["whole"]) if part in parts else "-"


def _use(found: Mapping[str, Any], results: Iterable[Mapping[str, Any]]) -> str:
    rows = [
        (
            f"`{one['workload']}`", number(one["useful_gflops"], 1), percent(one["mfu"]), percent(one["plain_mfu"]),
            _rate(one["rows"], one["ours"]), _rate(one["rows"], one["plain"]),
        )
        for one in results
        if one["useful_gflops"] is not None
    ]  # fmt: skip
    words = (
        "Useful operations are those of each distinct row and medium once, forward, and backward for what trains, "
        "without padding and recomputation, attention counted in full, the last layer where it is read. Their rate is "
        f"given as a share of the ceiling, the best square matrix product of the same run, "
        f"{found['ceiling'] / 1e9:.1f} GFLOP/s. Rows are items, or pairs of a training step.\n\n"
    )
    headers = (
        "workload", "useful GFLOP", "ours, % of ceiling", "plain, % of ceiling", "ours, rows/s", "plain, rows/s"
    )  # fmt: skip
    return words + table(headers, rows)


def _rate(amount: int, seconds: float | None) -> str:
    return number(amount / seconds, 1) if amount and seconds else "-"


def _counters(results: Iterable[Mapping[str, Any]]) -> str:
    rows = [
        (f"`{one['workload']}`", ", ".join(f"{name} {count:,}" for name, count in sorted(one["counters"].items())))
        for one in results
        if one["counters"]
    ]
    return "Of the first run of ours; the names are those of `mmembed/counters.py`.\n\n" + table(
        ("workload", "counters"), rows
    )


def _facts(results: Iterable[Mapping[str, Any]]) -> str:
    lines = []
    for one in results:
        for name, value in one["facts"].items():
            lines.append(f"- `{one['workload']}`: {name.replace('_', ' ')}: {_in_words(value)}")
        if one["note"]:
            lines.append(f"- `{one['workload']}`: {one['note']}.")
    return "\n".join(lines) or "Nothing."


def _in_words(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {_in_words(inner)}" for name, inner in value.items()) or "none"
    if isinstance(value, list):
        return " and ".join(value)
    return rounded(value) if isinstance(value, float) else f"{value:,}"


def _gpu(found: Mapping[str, Any], results: Iterable[Mapping[str, Any]]) -> str:
    if found["size"] != "2b":
        return NO_GPU if found["machine"]["device"] == "cpu" else "Measured on one: see the machine above."
    rows = []
    for one in results:
        asked = [required for required in WORKLOADS[one["workload"]].required if required.of == "mfu"]
        wanted = ", ".join(percent(required.bound) for required in asked) or "-"
        met = ", ".join("yes" if required.met(one, "2b") else "no" for required in asked) or "-"
        if one["useful_gflops"] is not None:
            tokens = _rate(one["counters"].get("language_tokens", 0), one["ours"])
            cells = _rate(one["rows"], one["ours"]), tokens, percent(one["mfu"]), wanted, met
            rows.append((f"`{one['workload']}`", *cells))
    words = (
        f"A whole Qwen2-VL-2B of random weights in bfloat16 on {found['machine']['device']}. Tokens are those that "
        "pass the language model, twice where a chunk is computed twice.\n\n"
    )
    return words + table(("workload", "rows/s", "tokens/s", "% of ceiling", "required", "met"), rows)


def _again(found: Mapping[str, Any]) -> str:
    words = (
        "`make bench` measures all of it. A part: `python scripts/bench.py --workloads encode_mixed,train_lora "
        "--output bench.json`. `--list` says what there is. On a busy machine take more `--rounds`."
    )
    return f"{words} This page: size {found['size']}, {found['rounds']} rounds, {found['date']}."


def table(headers: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table in Markdown."""
    lines = [headers, ["---"] * len(headers), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "/") for cell in line) + " |" for line in lines)
