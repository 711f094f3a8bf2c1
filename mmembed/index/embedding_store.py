"""Embeddings of an item table as a folder: shards of rows, each whole or not there, and a manifest of what made them.

A run that was killed leaves whole shards, and the same run started again adds only the others. Another model, other
settings or another input never mix with them.
"""

import json
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from mmembed.data.tables import ItemTable
from mmembed.errors import InputError
from mmembed.files import whole_file, write_json
from mmembed.items import Item
from mmembed.progress import track

MANIFEST = "manifest.json"
TENSOR, IDS = "embeddings", "ids"
BLOCK_ROWS = 512
"""Rows embedded in one call: enough to sort by length, few enough for the bar to move."""

Encode: TypeAlias = Callable[[Sequence[Item]], Tensor]
"""Embeds items: ``[N, D]`` in their order."""


@dataclass(frozen=True)
class Origin:
    """What makes the embeddings of a folder; runs share one only if all but the two names are equal.

    Args:
        model: what the caller calls the model.
        input: what the caller calls the item table.
        weights: fingerprint of the model's weights.
        settings: fingerprint of everything else that the vectors depend on: preprocessing, prompt, instruction, side.
        input_fingerprint: of the item table's bytes; media that change behind the same paths are not noticed.
        rows: of the item table.
        width: D of an embedding.
        shard_rows: rows of each shard but the last.
    """

    model: str
    input: str
    weights: str
    settings: str
    input_fingerprint: str
    rows: int
    width: int
    shard_rows: int

    def __post_init__(self) -> None:
        if self.shard_rows < 1:
            raise InputError("shard_rows", expected="1 or more", got=self.shard_rows, remedy="4096 is the default")


@dataclass(frozen=True)
class Shard:
    """Consecutive rows of the table in one file."""

    file: str
    first_row: int
    rows: int


class EmbeddingStore:
    """A folder that receives the embeddings of one origin.

    Args:
        directory: a new folder, or one that an equal run began.
        origin: what makes the embeddings.

    Raises:
        InputError: the folder holds the embeddings of another origin; both are named.
    """

    def __init__(self, directory: Path | str, origin: Origin) -> None:
        self.directory = Path(directory)
        self.origin = origin
        self.shards = plan_shards(origin.rows, origin.shard_rows)
        manifest = self.directory / MANIFEST
        if manifest.is_file():
            _refuse_other(manifest, _read_manifest(self.directory), origin)
        elif found := sorted(self.directory.glob("shard-*.safetensors")):
            raise InputError(
                self.directory, expected=f"{MANIFEST} beside shards", got=f"only {found[0].name}",
                remedy="choose another --output",
            )  # fmt: skip
        else:
            write_json(manifest, asdict(origin) | {"shards": [asdict(shard) for shard in self.shards]})

    def missing(self) -> list[Shard]:
        """The shards that are not there yet."""
        return [shard for shard in self.shards if not (self.directory / shard.file).is_file()]

    def write(self, shard: Shard, ids: Sequence[str], embeddings: Tensor) -> None:
        """Write a shard, whole or not at all.

        Args:
            shard: one of :attr:`shards`.
            ids: names of its rows.
            embeddings: ``[rows, D]``, finite; written as float32.

        Raises:
            InputError: another shape, or a row that is not finite.
        """
        path, shape = self.directory / shard.file, (shard.rows, self.origin.width)
        if tuple(embeddings.shape) != shape or len(ids) != shard.rows:
            got = f"{list(embeddings.shape)} and {len(ids)} ids"
            raise InputError(path, expected=f"{list(shape)} and as many ids", got=got, remedy="give one row for each")
        bad = (~embeddings.isfinite().all(dim=1)).nonzero().flatten().tolist()
        if bad:
            got = f"NaN or infinity in {len(bad)} rows, first '{ids[bad[0]]}'"
            raise InputError(path, expected="finite embeddings", got=got, remedy="try --dtype float32")
        with whole_file(path) as part:
            save_file({TENSOR: embeddings.float().cpu().contiguous()}, part, metadata={IDS: json.dumps(list(ids))})


def fill(store: EmbeddingStore, table: ItemTable, encode: Encode) -> int:
    """Embed the rows of every missing shard, behind a bar with the time left; gives the number of rows embedded.

    Raises:
        InputError: a row that cannot be used; file and rows are named.
    """
    missing = store.missing()
    numbers = [row for shard in missing for row in range(shard.first_row, shard.first_row + shard.rows)]
    if not numbers:
        return 0
    with closing(_tracked(numbers)) as rows:
        for shard in missing:
            ids: list[str] = []
            vectors: list[Tensor] = []
            while block := list(islice(rows, min(BLOCK_ROWS, shard.rows - len(ids)))):
                names, embedded = _embed(table, block, encode)
                ids += names
                vectors.append(embedded)
            store.write(shard, ids, torch.cat(vectors))
    return len(numbers)


def read_embeddings(directory: Path | str) -> tuple[list[str], Tensor]:
    """The ids and embeddings of a folder: N names and float32 ``[N, D]``, in the order of the item table.

    Raises:
        InputError: no manifest, or a shard that is missing or of another shape.
    """
    directory = Path(directory)
    manifest = _read_manifest(directory)
    shards = [Shard(**shard) for shard in manifest["shards"]]
    gone = [shard.file for shard in shards if not (directory / shard.file).is_file()]
    if gone:
        got = f"{len(shards) - len(gone)}, without {gone[0]}"
        raise InputError(directory, expected=f"{len(shards)} shards", got=got, remedy="start the same run again")
    ids: list[str] = []
    embeddings = torch.empty(sum(shard.rows for shard in shards), manifest["width"])
    for shard in shards:
        names, vectors = _read_shard(directory / shard.file, (shard.rows, embeddings.shape[1]))
        ids += names
        embeddings[shard.first_row : shard.first_row + shard.rows] = vectors
    return ids, embeddings


def plan_shards(rows: int, shard_rows: int) -> list[Shard]:
    """The shards of a table: ``shard_rows`` rows each, the last one what is left."""
    starts = range(0, rows, shard_rows)
    return [Shard(f"shard-{i:05d}.safetensors", at, min(shard_rows, rows - at)) for i, at in enumerate(starts)]


def _tracked(rows: Sequence[int]) -> Generator[int, None, None]:
    yield from track(rows, "embed", total=len(rows))


def _embed(table: ItemTable, rows: Sequence[int], encode: Encode) -> tuple[list[str], Tensor]:
    named = [table[row] for row in rows]
    try:
        return [name for name, _ in named], encode([item for _, item in named])
    except InputError as error:
        raise error.within(f"{table.where(rows[0])} and the {len(rows) - 1} rows after it") from error


def _read_manifest(directory: Path) -> dict[str, Any]:
    path = directory / MANIFEST
    if not path.is_file():
        raise InputError(path, expected="a manifest", got="no such file", remedy="name a folder of scripts/embed.py")
    return dict(json.loads(path.read_text(encoding="utf-8")))


def _read_shard(path: Path, shape: tuple[int, int]) -> tuple[list[str], Tensor]:
    with safe_open(path, framework="pt") as file:
        embeddings, ids = file.get_tensor(TENSOR), json.loads(file.metadata()[IDS])
    if tuple(embeddings.shape) != shape or len(ids) != shape[0]:
        got = f"{list(embeddings.shape)} and {len(ids)} ids"
        raise InputError(path, expected=f"{list(shape)}, as the manifest says", got=got, remedy="remove it, run again")
    return ids, embeddings


def _refuse_other(manifest: Path, there: Mapping[str, Any], wanted: Origin) -> None:
    for name, new in asdict(wanted).items():
        if name not in ("model", "input") and there[name] != new:
            raise InputError(
                f"{manifest}: {name}",
                expected=f"{there[name]} (of model '{there['model']}' and input '{there['input']}')",
                got=f"{new} (of model '{wanted.model}' and input '{wanted.input}')",
                remedy="choose another --output",
            )
