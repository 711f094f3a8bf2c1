"""Rows that cannot be used: replaced where they are met, counted over the run, and too many of them stop it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from mmembed.errors import InputError

_REASONS = 3
"""Reasons that the error tells."""

_LISTED = 20
"""Rows of a source that the report lists."""


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be used; picklable.

    Args:
        source: name in the mixture.
        row: number in the source's table, from 0.
        reason: the error, in words.
    """

    source: str
    row: int
    reason: str


class Quarantine:
    """The bad rows of a run, each held once; lives in the main process.

    Args:
        sizes: rows of each source.
        share: how many of a source's rows may be bad, as part of them; :attr:`mmembed.data.settings.Sampling.max_bad`.
    """

    def __init__(self, sizes: Mapping[str, int], share: float) -> None:
        self.sizes = dict(sizes)
        self.share = share
        self._found: dict[str, dict[int, BadRow]] = {name: {} for name in sizes}

    def add(self, rows: Iterable[BadRow]) -> list[BadRow]:
        """Hold some rows and return those that were not held before, in their order.

        Raises:
            InputError: a source now has more bad rows than may be; or a row of a source that is not in the mixture.
        """
        new = [row for row in rows if self._hold(row)]
        for name in dict.fromkeys(row.source for row in new):
            check_share(list(self._found[name].values()), self.sizes[name], self.share)
        return new

    def report(self) -> list[str]:
        """How many rows of each source were replaced, and why; nothing where none was."""
        lines = []
        for name, found in self._found.items():
            if found:
                lines.append(f"{name}: {len(found)} of {self.sizes[name]} rows could not be used")
                lines += [f"  row {row}: {found[row].reason}" for row in sorted(found)[:_LISTED]]
                lines += [f"  and {len(found) - _LISTED} more"] if len(found) > _LISTED else []
        return lines

    def state(self) -> dict[str, Any]:
        """What :meth:`load` takes back, as plain values of JSON."""
        return {"rows": [[bad.source, bad.row, bad.reason] for found in self._found.values() for bad in found.values()]}

    def load(self, state: Mapping[str, Any]) -> None:
        """Hold exactly the rows of a state; raises as :meth:`add` does."""
        self._found = {name: {} for name in self.sizes}
        self.add(BadRow(source, row, reason) for source, row, reason in state["rows"])

    def _hold(self, row: BadRow) -> bool:
        """Whether the row was not held before."""
        if row.source not in self._found:
            remedy = "go on with the recipe that the run began with"
            raise InputError("quarantine", expected=f"one of {', '.join(self.sizes)}", got=row.source, remedy=remedy)
        found = self._found[row.source]
        is_new = row.row not in found
        found.setdefault(row.row, row)
        return is_new


def check_share(bad: Sequence[BadRow], size: int, share: float) -> None:
    """Refuse more distinct bad rows of a source than may be, or that all its rows are bad.

    Args:
        bad: at least one row, all of one source.
        size: rows of the source.
        share: how many of them may be bad; ``0.29`` means exactly 29 of 100.

    Raises:
        InputError: names the source, the numbers and the first reasons.
    """
    allowed = min(int(Fraction(str(share)) * size), size - 1)
    if len(bad) > allowed:
        reasons = "; ".join(f"row {row.row}: {row.reason}" for row in bad[:_REASONS])
        raise InputError(
            f"mixture.{bad[0].source}",
            expected=f"at most {allowed} rows that cannot be used (sampling.max_bad {share:g})",
            got=f"{len(bad)} of {size}: {reasons}",
            remedy="mend the rows, or raise sampling.max_bad",
        )
