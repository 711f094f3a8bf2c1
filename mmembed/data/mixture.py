"""Several pair tables drawn from together: ``name: {table, weight, limit, instruction, ...}``."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa

from mmembed.data.pair_views import mirrored, with_query_media
from mmembed.data.sampler import Row, Sampler
from mmembed.data.settings import Sampling, Source
from mmembed.data.tables import PairTable, open_table
from mmembed.errors import InputError
from mmembed.items import Item, Pair


class LostTableError(InputError):
    """The file of a table can no longer be read, so no other row of it will do instead."""


@dataclass(frozen=True)
class Mixture:
    """Opened tables and the sampler that draws from them; picklable.

    Args:
        sources: settings of each source, by name.
        tables: the opened table of each source that has a weight.
        sampler: chooses the rows of a step.
    """

    sources: Mapping[str, Source]
    tables: Mapping[str, PairTable]
    sampler: Sampler

    def rows(self, step: int) -> list[Row]:
        """The rows of the global batch of a step, in order."""
        return self.sampler.rows(step)

    def pair(self, row: Row) -> Pair:
        """The pair of a row, as its source's settings make it; see :func:`as_drawn`.

        Raises:
            InputError: the row is not usable; file, row and field are named.
            LostTableError: the table is no longer what was opened.
        """
        table = self.tables[row.source]
        try:
            return as_drawn(table[row.row], row.source, self.sources[row.source])
        except (OSError, pa.ArrowException) as error:
            got, remedy = getattr(error, "strerror", None) or error, "put the file back and go on from a checkpoint"
            where = f"mixture.{row.source}: {table.path}"
            raise LostTableError(where, expected="the table that was opened", got=got, remedy=remedy) from error

    def pairs(self, step: int) -> list[Pair]:
        """The global batch of a step as its tables have it; raises as :meth:`pair` does."""
        return [self.pair(row) for row in self.rows(step)]

    def repeats(self) -> dict[str, tuple[int, int]]:
        """The sources whose rows meet themselves in a batch because they have fewer than a block of it.

        Returns:
            For each of them its rows, and how many of them follow each other in a batch.
        """
        sampling, sizes = self.sampler.sampling.resolved, self.sampler.sizes
        block = min(sampling.block_size, sampling.batch_size)
        return {name: (sizes[name], block) for name in self.tables if sizes[name] < block}


def as_drawn(pair: Pair, name: str, source: Source) -> Pair:
    """A pair of a table as training sees it: the first of its positives and negatives, and the name of its source.

    Then what :mod:`mmembed.data.pair_views` makes of it, where the source says so. A query that brings no instruction
    gets the source's; targets stay as they are.

    Raises:
        InputError: the pair has not what the view needs; the field is named.
    """
    positives, negatives = slice(source.max_positives), slice(source.max_negatives)
    of_positives, of_negatives = pair.teacher_scores[: len(pair.positives)], pair.teacher_scores[len(pair.positives) :]
    pair = replace(
        pair,
        source=name,
        positives=pair.positives[positives],
        negatives=pair.negatives[negatives],
        teacher_scores=of_positives[positives] + of_negatives[negatives],
        target_ids=pair.target_ids[positives],
    )
    if source.query_image_negative:
        pair = with_query_media(pair)
    if source.mirrored:
        pair = mirrored(pair)
    return replace(pair, query=Item.of(pair.query, source.instruction))


def open_mixture(sources: Mapping[str, Source], sampling: Sampling, *, seed: int, data_root: Path | str) -> Mixture:
    """Open the tables of a mixture below ``data_root``; their media lie in the folder of each table.

    The table of a source without weight is not opened, nor need it be there.

    Raises:
        InputError: no source, weights that sum to zero, or a table that is missing, empty or lacks a column; the source
            is named.
    """
    tables = {name: _open_source(name, source, Path(data_root)) for name, source in sources.items() if source.weight}
    sizes = {name: _size(source, tables.get(name)) for name, source in sources.items()}
    weights = {name: source.weight for name, source in sources.items()}
    return Mixture(sources, tables, Sampler(sizes, weights, sampling, seed=seed))


def _size(source: Source, table: PairTable | None) -> int:
    """Rows that are used."""
    rows = 0 if table is None else len(table)
    return rows if source.limit is None else min(rows, source.limit)


def _open_source(name: str, source: Source, data_root: Path) -> PairTable:
    try:
        return open_table(data_root / source.table)
    except InputError as error:
        raise error.within(f"mixture.{name}") from None
