"""Embeddings of an item table as a folder: shards of rows, each whole or not there, and a manifest of what made them.

A run that was killed leaves whole shards, and the same run started again adds only the others. Another model, other
settings or another input never mix with them. A region-indexed folder has a vector for each item as a whole and one for
each of its regions, the regions of an item in one shard with it.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeAlias

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from mmembed.data.tables import ItemTable
from mmembed.errors import InputError
from mmembed.files import whole_file, write_json
from mmembed.index.region_rows import WHOLE, RegionRows, pieces
from mmembed.items import Item
from mmembed.progress import progress

MANIFEST = "manifest.json"
TENSOR, IDS, REGIONS = "embeddings", "ids", "regions"
BLOCK_ROWS = 512
"""Rows embedded in one call: enough to sort by length, few enough for the bar to move."""
NAMES = ("model", "input", "about")
"""What a run calls things, and what it tells its readers: two runs may differ in them."""

PLACES = ("table", "media_root")
"""Told for readers; nothing depends on them."""

Encode: TypeAlias = Callable[[Sequence[Item]], Tensor]
"""Embeds items: ``[N, D]`` in their order."""


@dataclass(frozen=True)
class Origin:
    """What makes the embeddings of a folder; runs share one only if all but the names are equal.

    Args:
        model: what the caller calls the model.
        input: what the caller calls the item table.
        weights: fingerprint of the model's weights.
        settings: fingerprint of everything else that the vectors depend on: preprocessing, prompt, instruction, side.
        input_fingerprint: of the item table's bytes; media that change behind the same paths are not noticed.
        rows: of the item table; in a region-indexed folder, vectors.
        width: D of an embedding.
        shard_rows: rows of each shard but the last; in a region-indexed folder, the most, an item's being together.
        regions: whether the folder is region-indexed.
        about: what a reader may want to know, e.g. where the table is.
    """

    model: str
    input: str
    weights: str
    settings: str
    input_fingerprint: str
    rows: int
    width: int
    shard_rows: int
    regions: bool = False
    about: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.shard_rows < 1:
            raise InputError("shard_rows", expected="1 or more", got=self.shard_rows, remedy="4096 is the default")


_REQUIRED = {f.name for f in fields(Origin) if f.default is MISSING and f.default_factory is MISSING} | {"shards"}


@dataclass(frozen=True)
class Shard:
    """Consecutive rows in one file."""

    file: str
    first_row: int
    rows: int


@dataclass(frozen=True)
class Vectors:
    """What a folder holds, in the order of the item table.

    Args:
        ids: of the items; in a region-indexed folder once for the whole and once for each region.
        regions: which region of its item each vector is of, counted from 1; 0 is the whole.
        embeddings: float32 ``[N, D]``.
    """

    ids: list[str]
    regions: list[int]
    embeddings: Tensor


class EmbeddingStore:
    """A folder that receives the embeddings of one origin.

    Args:
        directory: a new folder, or one that an equal run began.
        origin: what makes the embeddings.
        starts: of a region-indexed folder, the rows that begin an item.
        overwrite: whether embeddings of another origin give way.

    Raises:
        InputError: the folder holds the embeddings of another origin; both are named.
    """

    def __init__(
        self, directory: Path | str, origin: Origin, *, starts: Sequence[int] | None = None, overwrite: bool = False
    ) -> None:
        self.directory = Path(directory)
        self.origin = origin
        self.starts = starts
        self.shards = plan_shards(origin.rows, origin.shard_rows, starts)
        manifest = self.directory / MANIFEST
        if overwrite and manifest.is_file() and _differences(read_manifest(self.directory), origin):
            # shards first: what is left of them without a manifest is refused, never adopted
            for file in [*self.directory.glob("shard-*.safetensors"), manifest]:
                file.unlink()
        if manifest.is_file():
            _refuse_other(manifest, read_manifest(self.directory), origin)
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

    def write(
        self, shard: Shard, ids: Sequence[str], embeddings: Tensor, *, regions: Sequence[int] | None = None
    ) -> None:
        """Write a shard, whole or not at all.

        Args:
            shard: one of :attr:`shards`.
            ids: names of its rows.
            embeddings: ``[rows, D]``, finite; written as float32.
            regions: of a region-indexed folder, which region of its item each row is of.

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
        told = {IDS: json.dumps(list(ids))} | ({} if regions is None else {REGIONS: json.dumps(list(regions))})
        with whole_file(path) as part:
            save_file({TENSOR: embeddings.float().cpu().contiguous()}, part, metadata=told)


def fill(store: EmbeddingStore, table: ItemTable | RegionRows, encode: Encode) -> int:
    """Embed the rows of every missing shard, behind a bar with the time left; gives the number of rows embedded.

    Raises:
        InputError: a row that cannot be used; file and rows are named.
    """
    missing = store.missing()
    total = sum(shard.rows for shard in missing)
    if not total:
        return 0
    with progress("embed", total) as advance:
        for shard in missing:
            rows = range(shard.first_row, shard.first_row + shard.rows)
            ids: list[str] = []
            vectors: list[Tensor] = []
            for first, end in pieces(rows.start, rows.stop, BLOCK_ROWS, store.starts):
                names, embedded = _embed(table, range(first, end), encode)
                ids += names
                vectors.append(embedded)
                advance(end - first)
            regions = [table.number(row) for row in rows] if isinstance(table, RegionRows) else None
            store.write(shard, ids, torch.cat(vectors), regions=regions)
    return total


def read_vectors(directory: Path | str) -> Vectors:
    """What a folder holds.

    Raises:
        InputError: no manifest, or a shard that is missing or of another shape.
    """
    directory = Path(directory)
    manifest = read_manifest(directory)
    shards = [Shard(**shard) for shard in manifest["shards"]]
    gone = [shard.file for shard in shards if not (directory / shard.file).is_file()]
    if gone:
        got = f"{len(shards) - len(gone)}, without {gone[0]}"
        raise InputError(directory, expected=f"{len(shards)} shards", got=got, remedy="start the same run again")
    ids: list[str] = []
    regions: list[int] = []
    embeddings = torch.empty(sum(shard.rows for shard in shards), manifest["width"])
    for shard in shards:
        read = _read_shard(directory / shard.file, (shard.rows, embeddings.shape[1]))
        ids += read.ids
        regions += read.regions
        embeddings[shard.first_row : shard.first_row + shard.rows] = read.embeddings
    return Vectors(ids, regions, embeddings)


def read_embeddings(directory: Path | str) -> tuple[list[str], Tensor]:
    """The ids and embeddings of a folder: N names and float32 ``[N, D]``, in the order of the item table.

    Raises:
        InputError: as :func:`read_vectors`; or a region-indexed folder, whose ids are not one for each vector.
    """
    read = read_vectors(directory)
    if any(read.regions):
        got = f"{len(read.ids)} vectors of {len(set(read.ids))} items"
        raise InputError(directory, expected="one vector for each item", got=got, remedy="use read_vectors")
    return read.ids, read.embeddings


def read_manifest(directory: Path | str) -> dict[str, Any]:
    """What a folder says of itself: its origin, and its shards.

    Raises:
        InputError: there is none, it cannot be read, or it is of something else.
    """
    path = Path(directory) / MANIFEST
    if not path.is_file():
        raise InputError(path, expected="a manifest", got="no such file", remedy="name a folder of scripts/embed.py")
    try:
        told: Any = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(path, expected="a manifest", got=error, remedy="embed the table again") from error
    missing = sorted(_REQUIRED - set(told)) if isinstance(told, dict) else ["everything"]
    if missing:
        got = f"a file without {', '.join(missing)}"
        raise InputError(path, expected="a manifest of scripts/embed.py", got=got, remedy="name another folder")
    return dict(told)


def plan_shards(rows: int, shard_rows: int, starts: Sequence[int] | None = None) -> list[Shard]:
    """The shards of a table: ``shard_rows`` rows each, the last one what is left; ``starts`` are not torn apart."""
    cuts = enumerate(pieces(0, rows, shard_rows, starts))
    return [Shard(f"shard-{i:05d}.safetensors", first, end - first) for i, (first, end) in cuts]


def _embed(table: ItemTable | RegionRows, rows: Sequence[int], encode: Encode) -> tuple[list[str], Tensor]:
    named = [table[row] for row in rows]
    try:
        return [name for name, _ in named], encode([item for _, item in named])
    except InputError as error:
        raise error.within(f"{table.where(rows[0])} and the {len(rows) - 1} rows after it") from error


def _read_shard(path: Path, shape: tuple[int, int]) -> Vectors:
    with safe_open(path, framework="pt") as file:
        embeddings, told = file.get_tensor(TENSOR), file.metadata()
    ids = json.loads(told[IDS])
    regions = json.loads(told[REGIONS]) if REGIONS in told else [WHOLE] * len(ids)
    if tuple(embeddings.shape) != shape or not len(ids) == len(regions) == shape[0]:
        got = f"{list(embeddings.shape)} and {len(ids)} ids"
        raise InputError(path, expected=f"{list(shape)}, as the manifest says", got=got, remedy="remove it, run again")
    return Vectors(ids, regions, embeddings)


def _differences(there: Mapping[str, Any], wanted: Origin) -> list[str]:
    """The names of what differs; what an older manifest does not tell is as it was then."""
    known = {f.name: f.default for f in fields(Origin)} | dict(there)
    return [name for name, new in asdict(wanted).items() if name not in NAMES and known[name] != new]


def _refuse_other(manifest: Path, there: Mapping[str, Any], wanted: Origin) -> None:
    # last what follows from other things, which say more
    for name in sorted(_differences(there, wanted), key=lambda name: name in ("rows", "settings")):
        old, new = there.get(name, "none"), getattr(wanted, name)
        if name == "settings" and (found := _setting_that_differs(there.get("about") or {}, wanted.about)):
            name, old, new = found
        raise InputError(
            f"{manifest}: {name}",
            expected=f"{old} (of model '{there['model']}' and input '{there['input']}')",
            got=f"{new} (of model '{wanted.model}' and input '{wanted.input}')",
            remedy="choose another --output, or replace it with --overwrite",
        )


def _setting_that_differs(there: Mapping[str, Any], wanted: Mapping[str, Any]) -> tuple[str, Any, Any] | None:
    """The first setting that differs by name, of those that a folder tells: a fingerprint says nothing to people."""
    old, new = (about | about.get("identity", {}) for about in (dict(there), dict(wanted)))
    for name in sorted((old.keys() | new.keys()) - {"identity", *PLACES}):
        if old.get(name) != new.get(name):
            return name, old.get(name, "none"), new.get(name, "none")
    return None
