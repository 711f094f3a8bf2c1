"""An item table as the rows of a region-indexed folder: each item as a whole, then with each of its regions alone."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import replace

from mmembed.data.tables import ItemTable
from mmembed.errors import InputError
from mmembed.items import Image, Item
from mmembed.media.regions import without_regions

WHOLE = 0
"""Number of the row that is an item without its regions; they are counted from 1 over all pictures of the item."""


class RegionRows:
    """The rows by number: an item's come one after another, so that its pictures pass the tower together.

    Args:
        table: the items; those whose pictures have no regions are one row.
        instruction: of the rows with a region, in place of the item's own; None leaves that.

    Raises:
        InputError: no picture of the table has a region, or a row that cannot be read.
    """

    def __init__(self, table: ItemTable, *, instruction: str | None = None) -> None:
        self.table, self.instruction = table, instruction
        counts = [num_regions(item) for _, item in table]
        if not any(counts):
            raise InputError(
                table.path, expected="pictures with regions", got=f"none in {len(table)} rows",
                remedy="add regions to the rows, or leave out --regions",
            )  # fmt: skip
        self._rows = [(row, number) for row, count in enumerate(counts) for number in range(WHOLE, count + 1)]
        self.starts = [i for i, (_, number) in enumerate(self._rows) if number == WHOLE]
        """The rows that begin an item."""

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, row: int) -> tuple[str, Item]:
        at, number = self._rows[row]
        name, item = self.table[at]
        shown = with_region(item, number)
        if number != WHOLE and self.instruction is not None:
            shown = replace(shown, instruction=self.instruction)
        return name, shown

    def number(self, row: int) -> int:
        """Which region a row is about; 0 is none."""
        return self._rows[row][1]

    def where(self, row: int) -> str:
        """What errors call a row."""
        at, number = self._rows[row]
        return self.table.where(at) if number == WHOLE else f"{self.table.where(at)}, region {number}"


def num_regions(item: Item) -> int:
    """How many regions the pictures of an item have together."""
    return sum(len(part.regions) for part in item.content if isinstance(part, Image))


def with_region(item: Item, number: int) -> Item:
    """The item with one of its regions only, counted from 1 over its pictures in reading order; with 0, with none."""
    if number == WHOLE:
        return without_regions(item)
    first, content = 1, []
    for part in item.content:
        if isinstance(part, Image):
            kept = part.regions[number - first : number - first + 1] if number >= first else ()
            first += len(part.regions)
            part = replace(part, regions=kept)
        content.append(part)
    return replace(item, content=tuple(content))


def pieces(first: int, end: int, size: int, starts: Sequence[int] | None) -> Iterator[tuple[int, int]]:
    """``first`` to ``end`` in pieces of ``size`` rows; with ``starts`` of whole items, at most ``size`` if one fits."""
    ends = range(first, end) if starts is None else starts[bisect_right(starts, first) : bisect_left(starts, end)]
    begin = last = first
    for stop in [*ends, end]:
        if stop - begin > size and last > begin:
            yield begin, last
            begin = last
        last = stop
    if end > begin:
        yield begin, end
