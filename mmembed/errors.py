"""The one way this package complains: where, what was expected, what was found, what to do."""

import difflib
from collections.abc import Iterable
from typing import Any


class InputError(ValueError):
    """Something the caller gave (a recipe, a row, a file) is not usable as it is.

    Args:
        where: file, row and field, most general first, e.g. ``train.jsonl: row 7: query.image``.
        expected: what would have been right.
        got: what was there instead.
        remedy: what the reader can do about it.
    """

    def __init__(self, where: object, *, expected: str, got: object, remedy: str) -> None:
        self.where, self.expected, self.got, self.remedy = str(where), expected, str(got), remedy
        super().__init__(f"{where}: expected {expected}, got {got}; {remedy}")

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.where, self.expected, self.got, self.remedy)

    def within(self, outer: object) -> "InputError":
        """The same complaint seen from a wider place (a file around a row, a row around a field)."""
        return _rebuild(type(self), f"{outer}: {self.where}", self.expected, self.got, self.remedy)


class MediaError(InputError):
    """A picture, video or page cannot be opened, decoded or trusted."""


class DivergenceError(RuntimeError):
    """The loss or an embedding is no longer a number; the rows at hand are named."""


class StoppedError(RuntimeError):
    """A run was told to stop, wrote its state, and left; the same command goes on."""


class LostProcessError(RuntimeError):
    """Another process of the run is gone, and the work they share cannot go on."""


def _rebuild(kind: type[InputError], where: str, expected: str, got: str, remedy: str) -> InputError:
    """An error out of a pickle: exceptions rebuild themselves from positional arguments, these have names."""
    return kind(where, expected=expected, got=got, remedy=remedy)


def nearest(word: str, known: Iterable[str]) -> str:
    """``"did you mean 'x'?"`` for the closest known word, or the list of them when none is close."""
    words = sorted(known)
    close = difflib.get_close_matches(word, words, n=1, cutoff=0.6)
    return f"did you mean '{close[0]}'?" if close else f"known: {', '.join(words)}"
