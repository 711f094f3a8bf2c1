"""Protocol: what a score depends on besides the model, and the short id printed beside every number.

Two scores are comparable if their ids are equal. What only says how a score is shown, such as marks and blinded
queries, is no part of it.
"""

import hashlib
import json
from typing import Any

from mmembed.evaluation.benchmark import Task
from mmembed.evaluation.retrieval_set import Sample

VERSION = 1
"""Counts up when the same rankings give other scores."""
ID_DIGITS = 12
OF_TASK = (
    *("metric", "ks", "macro", "candidates", "ties", "ndcg_fault_seed"),
    *("query_instruction", "target_instruction", "prompts"),
)
FIELDS = (*OF_TASK, "revision", "sample", "version")
"""What a protocol says: of the row, of the data that were found, and of this package."""


def protocol_of(task: Task, revision: str, sample: Sample | None = None) -> dict[str, Any]:
    """The protocol of a task as plain values.

    Args:
        task: the row.
        revision: fingerprint of the data as they were found.
        sample: the part of them that was scored; None is all.
    """
    fields = {name: getattr(task, name) for name in OF_TASK}
    drawn = None if sample is None else vars(sample)
    return fields | {"ks": list(task.ks), "revision": revision, "sample": drawn, "version": VERSION}


def protocol_id(protocol: dict[str, Any]) -> str:
    """Twelve hex digits that name a protocol: SHA-256 of its canonical JSON (sorted keys, no spaces)."""
    canonical = json.dumps(protocol, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:ID_DIGITS]
