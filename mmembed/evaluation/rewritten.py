"""Rewritten queries: a set of composed queries asked as descriptions of what they look for (CIReVL, arXiv:2310.09291).

A language model wrote them from a caption of the reference and the change. They are a file, for the same model under
the same name writes others later: ``TASK.jsonl`` has ``{"query_id", "caption", "change", "text", "fallback"}`` a line,
and ``keep_reference`` where the picture stays beside the text; ``TASK.json`` says who wrote it, and names its bytes.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mmembed.data.stores import open_store
from mmembed.errors import InputError
from mmembed.evaluation.benchmark import Task
from mmembed.evaluation.retrieval_set import RetrievalSet
from mmembed.files import file_fingerprint
from mmembed.items import Item

FIELDS = {"query_id": str, "caption": str, "change": str, "text": str, "fallback": bool}
KEEP = "keep_reference"


@dataclass(frozen=True)
class RewrittenQuery:
    """What one query is asked with instead.

    Args:
        text: the description of what it looks for.
        fallback: the model gave no description, and the text is the bare change.
        keep_reference: the query keeps its media before the text, for a composer to add up (GeneCIS' focus on
            attributes).
    """

    text: str
    fallback: bool = False
    keep_reference: bool = False


@dataclass(frozen=True)
class Rewritten:
    """The rewritten queries of a task.

    Args:
        path: the file.
        queries: by id.
        fingerprint: names the file's bytes.
        written_by: what the file beside it says; empty without one.
    """

    path: Path
    queries: Mapping[str, RewrittenQuery]
    fingerprint: str
    written_by: Mapping[str, Any]

    def check(self, retrieval_set: RetrievalSet) -> None:
        """Refuse a file that is not of this set, whole.

        Raises:
            InputError: a query that is not in the file, or one of the file that is not in the set.
        """
        for query_id in retrieval_set.queries:
            if query_id not in self.queries:
                raise InputError(
                    self.path, expected=f"a row for query '{query_id}'", got="none", remedy="rewrite the queries again"
                )
        for query_id in self.queries:
            if query_id not in retrieval_set.queries:
                raise InputError(
                    self.path, expected="queries of this set", got=f"'{query_id}'", remedy="take the file of this task"
                )

    def applied(self, retrieval_set: RetrievalSet) -> RetrievalSet:
        """The set, or a part of it, its queries asked with these texts."""
        queries = {query_id: _item(item, self.queries[query_id]) for query_id, item in retrieval_set.queries.items()}
        return replace(retrieval_set, queries=queries)

    def asked(self, task: Task) -> Task:
        """The row without what it says of pictures with changes: join, words and layout, instruction and blindings."""
        return replace(task, join=None, query_text=None, query_layout=None, query_instruction="", blind=())

    def about(self) -> dict[str, Any]:
        """What scores say of it: the file's fingerprint, who wrote it, and how many queries are the bare change."""
        fallbacks = sum(query.fallback for query in self.queries.values())
        return {**self.written_by, "fingerprint": self.fingerprint, "fallbacks": fallbacks}


def read_rewritten(folder: Path | str, task: str) -> Rewritten:
    """Read the rewritten queries of a task.

    Args:
        folder: holds ``TASK.jsonl``, and ``TASK.json`` where a command wrote it.
        task: name of the row.

    Raises:
        InputError: no such file, a bad row (file, line and field), or a file that changed since it was written.
    """
    path = Path(folder) / f"{task}.jsonl"
    if not path.is_file():
        raise InputError(
            path, expected=f"the rewritten queries of {task}", got="no such file",
            remedy=f"write them with --task {task}, or choose other tasks",
        )  # fmt: skip
    store = open_store(path)
    queries: dict[str, RewrittenQuery] = {}
    for row in range(len(store)):
        record, where = store.record(row), store.where(row)
        _check(record, where)
        query_id = record["query_id"]
        if query_id in queries:
            raise InputError(
                f"{where}: query_id", expected="each query once", got=f"'{query_id}' again", remedy="keep one of them"
            )
        queries[query_id] = RewrittenQuery(record["text"], record["fallback"], record.get(KEEP, False))
    name = file_fingerprint(path)
    return Rewritten(path, queries, name, _written_by(path.with_suffix(".json"), name))


def _item(item: Item, query: RewrittenQuery) -> Item:
    media = item.media if query.keep_reference else ()
    return Item((*media, query.text), verbatim=False)


def _check(record: Mapping[str, Any], where: str) -> None:
    known = FIELDS | {KEEP: bool}
    for name, kind in known.items():
        value = record.get(name, False if name == KEEP else None)
        if not isinstance(value, kind):
            expected = "true or false" if kind is bool else "a string"
            raise InputError(f"{where}: {name}", expected=expected, got=repr(value), remedy="write the five fields")
    if not record["text"].strip():
        raise InputError(f"{where}: text", expected="words", got="none", remedy="write the description, or the change")
    for name in record:
        if name not in known:
            raise InputError(f"{where}: {name}", expected=", ".join(known), got="another field", remedy="leave it out")


def _written_by(path: Path, fingerprint: str) -> Mapping[str, Any]:
    """What the manifest says; empty where nobody wrote one."""
    if not path.exists():
        return {}
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        outputs = manifest.pop("outputs")
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise InputError(
            path, expected="a mapping with outputs", got=f"{type(error).__name__}: {error}",
            remedy="rewrite the queries again",
        ) from error  # fmt: skip
    if outputs != fingerprint:
        raise InputError(
            path.with_suffix(".jsonl"), expected=f"the bytes that {path.name} names, {outputs}", got=fingerprint,
            remedy=f"rewrite the queries again, or remove {path.name} where you wrote them yourself",
        )  # fmt: skip
    found: Mapping[str, Any] = manifest
    return found
