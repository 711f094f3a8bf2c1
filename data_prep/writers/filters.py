"""Which answers become triplets: strict JSON first, then one filter after the other, each with the reason it gives."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from mmembed.errors import InputError

KEYS = {"instruction", "modified_caption"}
STOP_WORDS = frozenset(
    (
        *("a", "an", "the", "it", "its", "this", "that", "there", "and", "or", "is", "are", "be", "has", "have"),
        *("of", "in", "on", "at", "to", "for", "with", "by", "from", "as", "make", "show"),
    )
)
"""Words that say nothing of a picture."""
_WORD = re.compile(r"\w+(?:'\w+)?")


@dataclass(frozen=True)
class Edit:
    """An instruction and the caption of the changed picture."""

    instruction: str
    modified_caption: str


@dataclass(frozen=True)
class Filters:
    """What a triplet must be like."""

    max_words: int = 30
    """Most words of an instruction."""
    min_change: float = 0.1
    """Share of the words by which the modified caption must differ: more than this edit distance of words over the
    words of the longer one."""
    max_restated: float = 0.9
    """An instruction that holds this share of the modified caption's own words, or more, restates the target."""

    def __post_init__(self) -> None:
        if self.max_words < 1:
            raise InputError("--max-words", expected="1 or more", got=self.max_words, remedy="30 is usual")
        for name in ("min_change", "max_restated"):
            if not 0 <= getattr(self, name) <= 1:
                option = f"--{name.replace('_', '-')}"
                raise InputError(option, expected="a share from 0 to 1", got=getattr(self, name), remedy="leave it out")

    def judge(self, answer: str, caption: str) -> Edit | str:
        """The edit that an answer gives, or the reason why there is none."""
        edit = parsed(answer)
        if isinstance(edit, str):
            return edit
        if len(edit.instruction.split()) > self.max_words:
            return "instruction too long"
        if change_share(caption, edit.modified_caption) <= self.min_change:
            return "caption hardly changed"
        if restated_share(edit) >= self.max_restated:
            return "instruction restates the target"
        return edit


REASONS = (
    *("not JSON", "other keys than the two", "not strings", "no edit of this kind"),
    *("instruction too long", "caption hardly changed", "instruction restates the target"),
    *("outside the CLIP band", "again for this picture"),
)
"""Why an answer is rejected, in the order of the filters."""


def parsed(answer: str) -> Edit | str:
    """The edit of an answer that is exactly the JSON object asked for, or the reason why it is not."""
    try:
        value = json.loads(answer)
    # a model that repeats itself may open thousands of brackets
    except (ValueError, RecursionError):
        return "not JSON"
    if not isinstance(value, dict) or value.keys() != KEYS:
        return "other keys than the two"
    if not all(isinstance(text, str) and _is_text(text) for text in value.values()):
        return "not strings"
    edit = Edit(*(" ".join(value[key].split()) for key in ("instruction", "modified_caption")))
    return edit if edit.instruction and edit.modified_caption else "no edit of this kind"


def _is_text(text: str) -> bool:
    """Whether a string can be written: JSON may spell half of a character."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def change_share(before: str, after: str) -> float:
    """Levenshtein distance of the words of two texts, case aside, over the words of the longer one."""
    first, second = _words(before), _words(after)
    longer = max(len(first), len(second))
    return edit_distance(first, second) / longer if longer else 0.0


def edit_distance(first: Sequence[str], second: Sequence[str]) -> int:
    """Fewest words to insert, remove or replace that make one sequence the other."""
    row = list(range(len(second) + 1))
    for i, one in enumerate(first, 1):
        previous, row[0] = row[0], i
        for j, other in enumerate(second, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (one != other))
    return row[-1]


def restated_share(edit: Edit) -> float:
    """Share of the modified caption's words, stop words aside, that the instruction holds too."""
    wanted = {word for word in _words(edit.modified_caption) if word not in STOP_WORDS}
    return len(wanted & set(_words(edit.instruction))) / len(wanted) if wanted else 0.0


def normalised(text: str) -> str:
    """What two texts have in common that differ in case, spaces and punctuation alone."""
    return " ".join(_words(text))


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())
