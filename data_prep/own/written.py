"""The tables, retrieval sets and benchmark of one's own pairs."""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from data_prep.commands import OWN_DATA
from data_prep.own.joined import Answer, Asked
from mmembed.data.tables import write_items, write_pairs
from mmembed.files import write_text
from mmembed.items import Item, Negative, Pair
from mmembed.settings import dump_yaml

Queries: TypeAlias = Sequence[tuple[Item, Sequence[str]]]
"""Queries, each with the names of its right targets."""
Corpus: TypeAlias = Mapping[str, Item]
"""Targets by name."""
PICTURES = "pictures"
"""Link to the pictures, beside every table: media lie below the folder of their table."""
FIND_TEXT = "Find the words that describe the picture:"
FIND_PICTURE = {
    "text_to_picture": "Find the picture that the words describe:",
    "picture_to_picture": "Find the picture that belongs to this one:",
    "composed": "Find the picture that the words make of this one:",
}
"""Instruction of each task that finds pictures."""
BLINDS: Mapping[str, dict[str, Any]] = {
    "text_to_picture": {"blind_targets": ["grey_image"]},
    "picture_to_text": {"blind": ["grey_image"]},
    "picture_to_picture": {"blind": ["grey_image"]},
    "composed": {"blind": ["no_image", "no_text"]},
}
"""What is taken away for the scores beside the score."""


@dataclass(frozen=True)
class Wording:
    """What tells the tasks.

    Args:
        find_picture: instruction of queries for pictures; None is that of :data:`FIND_PICTURE`.
        find_text: instruction of queries for words.
    """

    find_picture: str | None = None
    find_text: str = FIND_TEXT


@dataclass(frozen=True)
class Writer:
    """Writes pairs as tables and sets.

    Args:
        folder: of all of them, absolute; :data:`PICTURES` is in it.
        wording: of the queries.
    """

    folder: Path
    wording: Wording

    def train(self, answers: Sequence[Answer]) -> dict[str, int]:
        """Write the training tables; how many rows each has."""
        for task in tasks_of(answers):
            write_pairs(self.folder / f"{task}.jsonl", self._pairs(answers, task))
        return dict.fromkeys(tasks_of(answers), len(answers))

    def test(self, answers: Sequence[Answer]) -> dict[str, int]:
        """Write the retrieval sets; how many queries each has."""
        queries = {}
        for task in tasks_of(answers):
            folder = self.folder / "test" / task
            folder.mkdir(parents=True)
            up = "/".join([".."] * len(folder.relative_to(self.folder).parts))
            (folder / PICTURES).symlink_to(f"{up}/{PICTURES}")
            asked, corpus = self._set(answers, task, folder)
            write_set(folder, asked, corpus)
            queries[task] = len(asked)
        return queries

    def _pairs(self, answers: Sequence[Answer], task: str) -> Iterator[Pair]:
        """A pair each: equal queries, of which training masks each other's answers, bring all of their pictures so."""
        for answer in answers:
            name, picture = f"line {answer.line}", self._picture(answer.picture, self.folder)
            if task == "picture_to_text":
                yield Pair(self._shown(answer.picture, self.folder), (Item.of(answer.asked.text),), query_id=name)
            else:
                negatives = tuple(Negative(self._picture(wrong, self.folder)) for wrong in answer.negatives)
                yield Pair(self._query(answer.asked, task, self.folder), (picture,), negatives, query_id=name)

    def _set(self, answers: Sequence[Answer], task: str, folder: Path) -> tuple[Queries, Corpus]:
        if task == "picture_to_text":
            texts = dict.fromkeys(answer.asked.text for answer in answers)
            names = {text: f"text-{number:05d}" for number, text in enumerate(texts)}
            found = _by_picture(answers).items()
            queries = [(self._shown(picture, folder), [names[one.asked.text] for one in own]) for picture, own in found]
            return queries, {name: Item.of(text) for text, name in names.items()}
        asked = _by_asked(answers).items()
        pictures = dict.fromkeys(answer.picture for answer in answers)
        queries = [(self._query(query, task, folder), [one.picture for one in own]) for query, own in asked]
        return queries, {name: self._picture(name, folder) for name in pictures}

    def _query(self, asked: Asked, task: str, folder: Path) -> Item:
        usual = FIND_PICTURE[task] if self.wording.find_picture is None else self.wording.find_picture
        values = {"text": asked.text, "image": None if asked.picture is None else folder / PICTURES / asked.picture}
        return Item.of({key: value for key, value in values.items() if value}, asked.instruction or usual or None)

    def _shown(self, picture: str, folder: Path) -> Item:
        return Item.of({"image": folder / PICTURES / picture}, self.wording.find_text or None)

    def _picture(self, picture: str, folder: Path) -> Item:
        return Item.of({"image": folder / PICTURES / picture})


def tasks_of(answers: Sequence[Answer]) -> list[str]:
    """The tasks that pairs are for, by what asks in them."""
    asked = answers[0].asked
    if asked.picture is None:
        return ["text_to_picture", "picture_to_text"]
    return ["composed" if asked.text else "picture_to_picture"]


def write_set(folder: Path, queries: Queries, corpus: Corpus) -> None:
    """Write a retrieval set."""
    write_items(folder / "queries.jsonl", ((f"q{i}", query) for i, (query, _) in enumerate(queries)))
    write_items(folder / "corpus.jsonl", corpus.items())
    rows = ({"query_id": f"q{i}", "targets": dict.fromkeys(right, 1)} for i, (_, right) in enumerate(queries))
    write_text(folder / "relevance.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def write_benchmark(path: Path, tasks: Sequence[str]) -> None:
    """Write the YAML of the sets; equal scores count as wrong, for a model that tells nothing apart finds nothing."""
    rows: dict[str, Any] = {
        task: {"data": f"{OWN_DATA}/test/{task}", "metric": "hit@1", "ties": "pessimistic"} | BLINDS[task]
        for task in tasks
    }
    write_text(path, f"# The held-out pairs of {OWN_DATA}.\n{dump_yaml({'tasks': rows})}")


def _by_asked(answers: Sequence[Answer]) -> dict[Asked, list[Answer]]:
    found: dict[Asked, list[Answer]] = defaultdict(list)
    for answer in answers:
        found[answer.asked].append(answer)
    return found


def _by_picture(answers: Sequence[Answer]) -> dict[str, list[Answer]]:
    found: dict[str, list[Answer]] = defaultdict(list)
    for answer in answers:
        found[answer.picture].append(answer)
    return found
