"""Several pair tables drawn from together: ``name: {table, weight, limit, instruction}``."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mmembed.data.sampler import Sampler
from mmembed.data.settings import Sampling, Source
from mmembed.data.tables import PairTable, open_table
from mmembed.errors import InputError
from mmembed.items import Item, Pair
from mmembed.settings import load_yaml, read_settings


@dataclass(frozen=True)
class Mixture:
    """Opened tables and the sampler that draws from them; picklable.

    Args:
        sources: settings of each source, by name.
        tables: the opened table of each source.
        sampler: chooses the rows of a step.
    """

    sources: Mapping[str, Source]
    tables: Mapping[str, PairTable]
    sampler: Sampler

    def pairs(self, step: int) -> list[Pair]:
        """The global batch of a step, each pair with the name of its source.

        Where a source has an instruction, its queries that bring none get it; targets stay as they are.

        Raises:
            InputError: a row is not usable; file, row and field are named.
        """
        return [self._pair(source, row) for source, row in self.sampler.rows(step)]

    def _pair(self, source: str, row: int) -> Pair:
        pair = self.tables[source][row]
        return replace(pair, source=source, query=Item.of(pair.query, self.sources[source].instruction))


def read_mixture(given: Path | str | Mapping[str, Any]) -> dict[str, Source]:
    """The sources of a mixture, from a YAML file or from its content.

    Raises:
        InputError: not a mapping of names to sources, or a source has an unknown field (the nearest is named) or value.
    """
    where, content = ("mixture", given) if isinstance(given, Mapping) else (str(given), load_yaml(given))
    if not isinstance(content, Mapping) or not content:
        remedy = "write name: {table: ...} for each source"
        raise InputError(where, expected="a mapping of sources", got=repr(content), remedy=remedy)
    return {
        str(name): value if isinstance(value, Source) else read_settings(Source, value, where=f"{where}: {name}")
        for name, value in content.items()
    }


def open_mixture(sources: Mapping[str, Source], sampling: Sampling, *, seed: int, data_root: Path | str) -> Mixture:
    """Open the tables of a mixture below ``data_root``; their media lie in the folder of each table.

    Raises:
        InputError: no source, or a table that is missing, empty or lacks a column; the source is named.
    """
    tables = {name: _open_source(name, source, Path(data_root)) for name, source in sources.items()}
    sizes = {name: min(len(table), sources[name].limit or len(table)) for name, table in tables.items()}
    weights = {name: source.weight for name, source in sources.items()}
    sampler = Sampler(sizes, weights, sampling.batch_size, sampling.block_size, sampling.window, seed)
    return Mixture(sources, tables, sampler)


def _open_source(name: str, source: Source, data_root: Path) -> PairTable:
    try:
        return open_table(data_root / source.table)
    except InputError as error:
        raise error.within(f"mixture.{name}") from None
