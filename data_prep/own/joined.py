"""Rows that say the same joined, and pairs held out so that no picture and no text stands on both sides."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from data_prep.own.rows import Row
from mmembed.errors import InputError
from mmembed.files import fingerprint

MIN_TRAIN = 20
"""Fewest pairs that are worth training on."""
MIN_HELD_OUT, MAX_HELD_OUT, HELD_OUT_SHARE = 20, 1000, 0.1
LARGEST_GROUP = 0.5
"""A group that would be more than this share of what is held out stays in training."""


class Asked(NamedTuple):
    """A query: a picture, words, or both, and what tells the task where a row has its own."""

    picture: str | None
    text: str
    instruction: str | None


@dataclass(frozen=True)
class Answer:
    """A query and a picture that answers it, each in the first of its spellings or files.

    Args:
        asked: the query.
        picture: the answer.
        negatives: wrong answers.
        line: first row that says so.
    """

    asked: Asked
    picture: str
    negatives: tuple[str, ...]
    line: int

    @property
    def contents(self) -> tuple[str, ...]:
        """What must not stand on both sides: its pictures, and its words where they ask alone."""
        asked = self.asked
        return (self.picture, asked.picture) if asked.picture is not None else (self.picture, f"text: {asked.text}")


@dataclass(frozen=True)
class Joining:
    """The first picture that shows the same, and the first spelling of the same words.

    Args:
        pictures: of each picture, the first that shows the same.
        texts: of each text without its capitals, the first spelling.
    """

    pictures: Mapping[str, str]
    texts: Mapping[str, str]

    @classmethod
    def of(cls, rows: Sequence[Row], looks: Mapping[str, str]) -> "Joining":
        """What is the same in rows."""
        first: dict[str, str] = {}
        pictures = {name: first.setdefault(look, name) for name, look in looks.items()}
        texts: dict[str, str] = {}
        for row in rows:
            texts.setdefault(row.text.casefold(), row.text)
        return cls(pictures, texts)

    @property
    def copies(self) -> int:
        """Pictures that show what another one shows."""
        return len(self.pictures) - len(set(self.pictures.values()))

    def answers(self, rows: Iterable[Row]) -> list[Answer]:
        """Different pairs, in the order of their first rows; the wrong answers of equal ones together."""
        found: dict[tuple[Asked, str], Answer] = {}
        for row in rows:
            query = None if row.query_picture is None else self.pictures[row.query_picture]
            asked = Asked(query, self.texts[row.text.casefold()], row.instruction)
            wrong = tuple(self.pictures[name] for name in row.negatives)
            new = Answer(asked, self.pictures[row.picture], wrong, row.line)
            old = found.setdefault((asked, new.picture), new)
            if old is not new:
                negatives = tuple(dict.fromkeys((*old.negatives, *wrong)))
                found[asked, new.picture] = replace(old, negatives=negatives)
        return list(found.values())


def refuse_right_negatives(answers: Sequence[Answer], where: object) -> None:
    """Refuse a wrong answer that another row, or the same, has as a right one, and a picture that answers itself.

    Raises:
        InputError: names the file and the line.
    """
    right: dict[Asked, set[str]] = defaultdict(set)
    for answer in answers:
        right[answer.asked].add(answer.picture)
    for answer in answers:
        place = f"{where}: line {answer.line}"
        if answer.asked.picture == answer.picture:
            raise InputError(
                place, expected="two pictures", got=f"'{answer.picture}' as the answer to itself", remedy="leave it out"
            )
        if both := right[answer.asked] & set(answer.negatives):
            raise InputError(
                place, expected="a wrong answer", got=f"'{min(both)}', which shows a right one", remedy="leave it out"
            )


def held_out(answers: Sequence[Answer], looks: Mapping[str, str], wanted: int | None, seed: int) -> set[Answer]:
    """Pairs to hold out: whole groups of those that share a picture or a text, drawn by a hash of what they hold.

    Args:
        answers: different pairs.
        looks: what each picture shows, so that neither names nor the order of rows decide.
        wanted: at least so many; None is a tenth, at least 20 and at most 1000.
        seed: draws others.

    Raises:
        InputError: too few pairs, or too many of them hang together.
    """
    number = wanted or min(MAX_HELD_OUT, max(MIN_HELD_OUT, round(HELD_OUT_SHARE * len(answers))))
    if len(answers) < number + MIN_TRAIN:
        raise InputError(
            "rows", expected=f"{number + MIN_TRAIN} different pairs, {number} to hold out and {MIN_TRAIN} to train",
            got=len(answers), remedy="find more rows, or hold out fewer: --held-out",
        )  # fmt: skip
    groups = groups_of(answers)
    drawn: set[Answer] = set()
    for group in sorted(groups, key=lambda group: _lot(group, looks, seed)):
        if len(drawn) < number and len(group) <= largest_held_out(number):
            drawn |= set(group)
    if len(drawn) < number or len(answers) - len(drawn) < MIN_TRAIN:
        raise _hang_together(groups, number)
    return drawn


def largest_held_out(number: int) -> int:
    """Pairs of the largest group that may be held out, so that none is a large part of what is scored."""
    return max(1, int(LARGEST_GROUP * number))


def groups_of(answers: Sequence[Answer]) -> list[list[Answer]]:
    """Pairs that share a picture or a text, however many others lie between them."""
    parents: dict[str, str] = {}

    def root(content: str) -> str:
        parents.setdefault(content, content)
        while parents[content] != content:
            parents[content] = parents[parents[content]]
            content = parents[content]
        return content

    for answer in answers:
        first, *others = map(root, answer.contents)
        for other in others:
            parents[other] = first
    groups: dict[str, list[Answer]] = defaultdict(list)
    for answer in answers:
        groups[root(answer.picture)].append(answer)
    return list(groups.values())


def _lot(group: Sequence[Answer], looks: Mapping[str, str], seed: int) -> str:
    return fingerprint(str(seed), min(looks[answer.picture] for answer in group))


def _hang_together(groups: Sequence[Sequence[Answer]], number: int) -> InputError:
    largest = max(groups, key=len)
    shared = Counter(content for answer in largest for content in answer.contents)
    name, times = shared.most_common(1)[0]
    return InputError(
        "rows",
        expected=f"{number} pairs to hold out, in groups of at most {largest_held_out(number)} that share no picture "
        "and no text with the others",
        got=f"{len(groups)} groups, the largest of {len(largest)} pairs, in {times} of which stands '{name}'",
        remedy="take words that tell the pictures apart, hold out more, so that larger groups may be (--held-out), or "
        "give --held-out-csv",
    )  # fmt: skip
