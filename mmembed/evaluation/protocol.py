"""Protocol: what a score depends on besides the model, and the short id printed beside every number.

Two scores are comparable if their ids are equal. What only says how a score is shown, such as marks and blinded
queries, is no part of it.
"""

import hashlib
import json
import sys
from typing import Any

from mmembed.evaluation.benchmark import Task
from mmembed.evaluation.retrieval_set import RetrievalSet, Sample
from mmembed.files import fingerprint

VERSION = 1
"""Counts up when the same rankings give other scores."""
ID_DIGITS = 12
OF_TASK = (
    *("metric", "ks", "macro", "candidates", "ties", "ndcg_fault_seed"),
    *("query_instruction", "target_instruction", "query_layout", "target_layout", "prompts"),
)
OF_FORM = ("query_regions", "region_words")
"""Of the row too, where regions are shown in another form than they are given."""
OF_COMPOSED = ("reference", "query_text", "target_text", "join")
"""Of the row too, where they say something: how a picture and a change are asked for."""
FIELDS = (*OF_TASK, *OF_FORM, *OF_COMPOSED, "references", "revision", "groups", "labels", "sample", "version")
"""What a protocol says: of the row, of the data that were found, and of this package."""


def protocol_of(task: Task, retrieval_set: RetrievalSet, sample: Sample | None = None) -> dict[str, Any]:
    """The protocol of a task as plain values.

    Args:
        task: the row.
        retrieval_set: its data, as they were scored.
        sample: the part of the data that they are; None is all.
    """
    form = {"region": (), "crop": OF_FORM[:1]}.get(task.query_regions, OF_FORM)
    composed = [name for name in OF_COMPOSED if getattr(task, name) not in (None, "kept")]
    fields = {name: getattr(task, name) for name in (*OF_TASK, *form, *composed)}
    # the fault permutes grades: where all of a query are equal, it changes nothing
    faulty = task.ndcg_fault_seed is not None and any(len({*g.values()}) > 1 for g in retrieval_set.relevance.values())
    found = {
        "revision": retrieval_set.fingerprint(),
        "groups": None if task.macro is None else _named(retrieval_set.groups),
        # the fault depends on the order of labels and on the Python that hashes them
        "labels": _labels(retrieval_set) if faulty else None,
        "ndcg_fault_seed": task.ndcg_fault_seed if faulty else None,
        "sample": None if sample is None else vars(sample),
    }
    if task.reference == "removed":
        found["references"] = _named(retrieval_set.references)
    return fields | {"ks": list(task.ks)} | found | {"version": VERSION}


def protocol_id(protocol: dict[str, Any]) -> str:
    """Twelve hex digits that name a protocol: SHA-256 of its canonical JSON (sorted keys, no spaces)."""
    canonical = json.dumps(protocol, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:ID_DIGITS]


def _labels(retrieval_set: RetrievalSet) -> str:
    python = f"Python {sys.version_info.major}.{sys.version_info.minor}"
    return _named([python, {query: list(targets) for query, targets in retrieval_set.relevance.items()}])


def _named(value: Any) -> str:
    return fingerprint(json.dumps(value, sort_keys=True, default=dict))
