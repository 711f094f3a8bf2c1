"""The results as a page: ``docs/results/performance.md``."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from scripts.benchmark.catalogue import WORKLOADS, Required
from scripts.benchmark.tables import number, percent, span

PARTS = ("decode", "preprocess", "vision", "language", "loss", "backward", "optimiser", "wait", "other")
INTRO = """# Performance

Our way beside the plain way to the same numbers, measured in one run on one machine. `make bench` writes this
page and `docs/results/bench.json`. The plain way is the loop that people write on transformers: its processor and its
forward, batches of 16 in input order, padded; for training, cached gradients (arXiv:2101.06983) in chunks of 8. Both
must give the same outcome before they are timed, to {tolerance:g} of the largest number, and then take turns. Seconds
belong to this machine; the ratio is what to look at."""
NO_GPU = """No data-centre GPU was at hand for this page. The command is ready for one, and refuses to run without:
`python scripts/bench.py --size 2b --output bench_2b.json --page bench_2b.md` measures a whole Qwen2-VL-2B of random
weights in bfloat16. Asked of it there are 45 % of the ceiling in training and 55 % in encoding."""


def results_page(found: Mapping[str, Any]) -> str:
    """The page of what ``scripts/bench.py`` found, in Markdown."""
    results = {result["workload"]: result for result in found["results"]}
    sections = [
        INTRO.format(tolerance=found["tolerance"]),
        "## Machine\n\n" + _machine(found),
        "## What is required\n\n" + _required(results),
        "## Workloads\n\n" + _workloads(results.values()),
        "## Where the time goes\n\n" + _parts(results.values()),
        "## Use of the hardware\n\n" + _use(found, results.values()),
        "## Work counted\n\n" + _counters(results.values()),
        "## Beside the ratios\n\n" + _facts(results.values()),
        "## A GPU\n\n" + (NO_GPU if found["machine"]["device"] == "cpu" else "Measured on one: see the machine above."),
        "## Again\n\n" + _again(found),
    ]
    return "\n\n".join(sections) + "\n"


def _machine(found: Mapping[str, Any]) -> str:
    lines = {**found["machine"], "size": found["size"], "ceiling": f"{found['ceiling'] / 1e9:.1f} GFLOP/s"}
    return table(("what", "value"), lines.items())


def _required(results: Mapping[str, Mapping[str, Any]]) -> str:
    rows = []
    for name, entry in WORKLOADS.items():
        for required in entry.required:
            result = results.get(name, {})
            met = {True: "yes", False: "no", None: "not measured"}[required.met(result)]
            rows.append((f"`{name}`", required.words, _bound(required), _rounded(required.found(result)), met))
    return table(("workload", "what", "required", "measured", "met"), rows)


def _bound(required: Required) -> str:
    words = f"{'at least' if required.at_least else 'at most'} {_rounded(required.bound)}"
    return words if required.aim is None else f"{words} (aim {_rounded(required.aim)})"


def _workloads(results: Iterable[Mapping[str, Any]]) -> str:
    headers = (
        "workload",
        "what",
        "plain s",
        "ours s",
        "plain/ours",
        "range",
        "plain MiB",
        "ours MiB",
        "difference",
        "on",
    )
    rows = [
        (
            f"`{one['workload']}`", WORKLOADS[one["workload"]].what, number(one["plain"], 3), number(one["ours"], 3),
            number(one["ratio"], 2), span(one["spread"]["ratio"]), number(one["plain_peak_mb"], 0),
            number(one["peak_mb"], 0), _rounded(one["difference"]), one["options"] or "-",
        )
        for one in results
    ]  # fmt: skip
    return "Medians; the range is that of the ratio.\n\n" + table(headers, rows)


def _parts(results: Iterable[Mapping[str, Any]]) -> str:
    broken = [one for one in results if one["breakdown"]]
    used = [part for part in PARTS if any(part in one["breakdown"] for one in broken)]
    rows = [
        (f"`{one['workload']}`", *(_share(one["breakdown"], part) for part in used), f"{one['breakdown']['whole']:.3f}")
        for one in broken
    ]
    words = "Shares of one more run of ours in per cent, and its seconds; a part inside another is counted once.\n\n"
    return words + table(("workload", *used, "s"), rows)


def _share(parts: Mapping[str, float], part: str) -> str:
    return percent(parts[part] / parts["whole"]) if part in parts else "-"


def _use(found: Mapping[str, Any], results: Iterable[Mapping[str, Any]]) -> str:
    rows = [
        (
            f"`{one['workload']}`", number(one["useful_gflops"], 1), percent(one["mfu"]), percent(one["plain_mfu"]),
            number(one["rows"] / one["ours"], 1) if one["rows"] else "-",
            number(one["rows"] / one["plain"], 1) if one["rows"] and one["plain"] else "-",
        )
        for one in results
        if one["useful_gflops"] is not None
    ]  # fmt: skip
    words = (
        "Useful operations are those of each distinct row and medium once, forward, and backward for what trains, "
        "without padding and recomputation, attention counted in full, the last layer where it is read. Their rate is "
        f"given as a share of the best square matrix product of the same run, {found['ceiling'] / 1e9:.1f} GFLOP/s.\n\n"
    )
    headers = ("workload", "useful GFLOP", "ours %", "plain %", "ours rows/s", "plain rows/s")
    return words + table(headers, rows)


def _counters(results: Iterable[Mapping[str, Any]]) -> str:
    rows = [
        (f"`{one['workload']}`", ", ".join(f"{name} {count:,}" for name, count in sorted(one["counters"].items())))
        for one in results
        if one["counters"]
    ]
    return "Of one run of ours; the names are those of `mmembed/counters.py`.\n\n" + table(
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
        return ", ".join(f"{name} {_in_words(inner)}" for name, inner in value.items()) or "none"
    if isinstance(value, list):
        return " and ".join(value)
    return _rounded(value) if isinstance(value, float) else f"{value:,}"


def _again(found: Mapping[str, Any]) -> str:
    words = (
        "`make bench` measures all of it. A part: `python scripts/bench.py --workloads encode_mixed,train_lora "
        "--output bench.json`. `--list` says what there is. On a busy machine take more `--rounds`."
    )
    return f"{words} This page: size {found['size']}, {found['rounds']} rounds, {found['date']}."


def _rounded(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def table(headers: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table in Markdown."""
    lines = [headers, ["---"] * len(headers), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "/") for cell in line) + " |" for line in lines)
