"""The words and numbers of an evaluation that its tables share; all times 100."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mmembed.evaluation.benchmark import Benchmark, Passing
from mmembed.evaluation.expected import Comparison, Expected, Verdict
from mmembed.evaluation.means import PartMean
from mmembed.evaluation.scores import BASELINES, highest_blind, our_mean, percent, what_is_less

SIGNS: dict[Verdict, str] = {
    "ok": "✓",
    "above": "▲",
    "below": "▼",
    "missing": "–",  # noqa: RUF001
    "other metric": "≠",
    "other protocol": "≠",
    "differs": "≠",
}
LEGEND = {"✓": "within its tolerance", "▲": "above", "▼": "below", "≠": "not compared"}
INSTRUCTIONS, LAYOUTS = ("query_instruction", "target_instruction"), ("query_layout", "target_layout")
NOT_SHOWN = ("id", "name", "wordings")
"""Fields of a protocol that stand elsewhere, or are not in force."""
OWN_FIRST = 0.2
"""Where more of the queries find first what they show themselves, a model looks at the picture more than the change."""
CANDIDATE_COLUMNS = ("task", "wrong ones", "score", "±", "chance", "blind", "queries")
"""Columns of the table of scores among groups of candidates."""


def marks(row: Mapping[str, Any], passing: Passing | None) -> dict[str, bool]:
    """What a task's row of scores reaches of what it must, in words; empty without conditions."""
    if passing is None:
        return {}
    found = {f"{passing.chance_factor:g} x chance": row["score"] >= passing.chance_factor * row["chance"]}
    if row["blind"] is not None:
        found[f"blind + {100 * passing.blind_margin:g}"] = row["score"] - row["blind"] >= passing.blind_margin
    found[f"aim {100 * passing.aim:g}"] = row["score"] >= passing.aim
    return found


def title(scores: Mapping[str, Any]) -> str:
    """Benchmark and model; of a miniature it says so."""
    protocol = scores["protocol"]
    return f"{protocol['benchmark']}{' (miniature)' if protocol['miniature'] else ''}: {protocol['model']}"


def notes(
    scores: Mapping[str, Any], benchmark: Benchmark, expected: Expected | None, compared: Mapping[str, Comparison]
) -> list[str]:
    """What stands beside a table: the mean, what makes it less, whose scores are beside ours and why some are not."""
    found = [str(our_mean(scores, benchmark)), *what_is_less(scores), *of_composed(scores)]
    if expected is not None:
        shown = [row for row in compared.values() if row.task in scores["tasks"]]
        signs = [sign for sign in LEGEND if sign in {SIGNS[row.verdict] for row in shown}]
        legend = ", ".join(f"{sign} {LEGEND[sign]}" for sign in signs)
        found.append(f"published{f' ({legend})' if legend else ''}: {expected.name}: {expected.source}")
        found += [expected.note] if expected.note else []
        found += [f"≠ {reason}" for reason in reasons(row for row in shown if SIGNS[row.verdict] == "≠")]
    return found


def of_composed(scores: Mapping[str, Any]) -> list[str]:
    """What to know of rows of composed queries: which find themselves first, were rewritten, or have no baselines."""
    rows, protocols = scores["tasks"], scores["protocol"]["tasks"]
    often: dict[bool, list[str]] = {}
    for name, row in rows.items():
        if (part := row.get("reference_first") or 0.0) > OWN_FIRST:
            is_removed = protocols[name].get("reference") == "removed"
            often.setdefault(is_removed, []).append(f"{percent(part)} % in {name}")
    found = []
    if False in often:
        found.append(f"warning: queries find their own reference first, which the row keeps: {', '.join(often[False])}")
    if True in often:
        found.append(f"queries find their own reference first, before it is removed: {', '.join(often[True])}")
    for name, rewritten in scores.get("about", {}).get("rewritten", {}).items():
        if name in rows:
            bare = f"of whose texts {rewritten['fallbacks']} are the bare change"
            found.append(f"{name} is asked with rewritten queries, file {rewritten['fingerprint'][:12]}, {bare}")
    if without := [name for name, row in rows.items() if row.get("baselines") == {}]:
        found.append(f"no baselines of {', '.join(without)}: not every query is a picture and words")
    return found


def baseline_rows(row: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """What the halves of a task's composed queries score, as rows like the task's own, by what tables call them."""
    fixed: dict[str, Any] = {"blind": None, "blinds": {}}
    return {BASELINES[name]: {**row, **fixed, **found} for name, found in row.get("baselines", {}).items()}


def reasons(compared: Iterable[Comparison]) -> list[str]:
    """Why some are not compared, each reason with those that have it."""
    found: dict[tuple[str, str], list[str]] = {}
    for row in compared:
        if row.why:
            found.setdefault((row.verdict, row.why), []).append(row.task)
    return [f"{verdict}: {', '.join(tasks)}: {why}" for (verdict, why), tasks in found.items()]


def task_name(name: str, row: Mapping[str, Any]) -> str:
    """A task as tables call it, marked where a part of its data was scored."""
    return name if row["part"] is None else f"{name} (part)"


def candidate_rows(scores: Mapping[str, Any]) -> list[dict[str, str]]:
    """Cells of the table of scores among groups of candidates, by column; of several tasks their mean comes last."""
    rows, by_group = [], dict[tuple[str, str], list[Mapping[str, Any]]]()
    for name, task in scores["tasks"].items():
        for kind, groups in task.get("candidate_groups", {}).items():
            for group, found in groups.items():
                by_group.setdefault((kind, group), []).append(found)
                low, high = found["interval"]
                cells = {"task": task_name(name, task), "wrong ones": f"{kind} {group}"}
                rows.append(cells | _among(found) | {"±": percent((high - low) / 2), "queries": f"{found['queries']}"})
    for (kind, group), all_found in by_group.items():
        if len(all_found) > 1:
            cells = {"task": f"mean of {len(all_found)}", "wrong ones": f"{kind} {group}"}
            rows.append(cells | _among(_mean_of(all_found)) | {"±": "", "queries": ""})
    return rows


def _among(found: Mapping[str, Any]) -> dict[str, str]:
    blind = percent(highest_blind(found["blinds"]))
    return {"score": percent(found["score"]), "chance": percent(found["chance"]), "blind": blind}


def _mean_of(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    blinds = {name for one in found for name in one["blinds"]}
    return {
        "score": sum(one["score"] for one in found) / len(found),
        "chance": sum(one["chance"] for one in found) / len(found),
        "blinds": {
            name: sum(one["blinds"][name] for one in found) / len(found)
            for name in blinds
            if all(name in one["blinds"] for one in found)
        },
    }


def published(comparison: Comparison | None) -> str:
    """A published score, its tolerance, and the sign of what comparing gave."""
    if comparison is None:
        return ""
    return f"{within(comparison.published, comparison.tolerance)} {SIGNS[comparison.verdict]}"


def within(value: float | None, tolerance: float) -> str:
    """A value and its tolerance, e.g. ``80.8 ± 2.0``."""
    return percent(value) if value is None else f"{percent(value)} ± {percent(tolerance)}"


def mean_cells(part: PartMean) -> dict[str, str]:
    """Cells of the table of means by column: our mean, the published one, and what comparing the two gave."""
    found = part.comparison
    ours = percent(part.ours.mean) if part.ours.mean is not None else str(part.ours)
    theirs = percent(part.published) if found is None else within(part.published, found.tolerance)
    compared = ""
    if found is not None:
        compared = SIGNS[found.verdict]
        if found.difference is not None:
            over = found.metric.removeprefix("mean of ")
            compared += f" {signed(found.difference)}{f', over {over}' if ' of ' in over else ''}"
    return {"tasks": f"{part.ours.total}", "score": ours, "published": theirs, "compared": compared}


def mean_columns(expected: Expected | None) -> list[str]:
    """The columns of the table of means, after the mean's name."""
    return ["tasks", "score", *(["published", "compared"] if expected else [])]


def protocol_words(protocol: Mapping[str, Any]) -> dict[str, str]:
    """The fields of a task's protocol as one reads them; strings of prompts in quotes, their newlines written out."""
    return {name: _field(name, value) for name, value in protocol.items() if name not in NOT_SHOWN}


def plain(value: Any) -> str:
    """A field of a protocol as one reads it."""
    if value is None or value == "" or value == []:
        return "none"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {plain(inner)}" for key, inner in value.items())
    return ", ".join(map(plain, value)) if isinstance(value, list) else str(value)


def signed(difference: float | None) -> str:
    """A difference of fractions times 100, with its sign."""
    return percent(None) if difference is None else f"{100 * difference:+.1f}"


def _field(name: str, value: Any) -> str:
    if name not in (*INSTRUCTIONS, *LAYOUTS):
        return plain(value)
    if value is None:
        return "the data's own" if name in INSTRUCTIONS else "joined by separators"
    return json.dumps(value, ensure_ascii=False)
