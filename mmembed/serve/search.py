"""Searches the embeddings of an item table with the model that made them, exactly."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, Self

from mmembed.data.tables import ItemTable
from mmembed.errors import InputError
from mmembed.files import file_fingerprint, fingerprint
from mmembed.index.embedding_store import Vectors, read_manifest, read_vectors
from mmembed.index.region_rows import WHOLE, with_region
from mmembed.index.topk import top_k
from mmembed.items import Image, Item
from mmembed.models.embedder import Embedder
from mmembed.models.identity import identity
from mmembed.models.sam2.predict import predict_masks
from mmembed.models.sam2.sam import SamMask

_ELSEWHERE = ("device", "code")
_LIBRARY = "library."


@dataclass(frozen=True)
class Hit:
    """A target that was found.

    Args:
        id: its name.
        score: the inner product of its embedding and the query's.
        item: its content, of its regions only the one that was found.
        region: which region of it was found, counted from 1 over its pictures; 0 is the item as a whole.
    """

    id: str
    score: float
    item: Item
    region: int


class Index:
    """A folder of ``scripts/embed.py`` with the item table that it was made of.

    Args:
        directory: the folder.
        table: where the table is now; None is where it was.

    Raises:
        InputError: shards that are missing, a table that is not there, or one that is not the one that was embedded.
    """

    def __init__(self, directory: Path | str, *, table: Path | str | None = None) -> None:
        self.directory = Path(directory)
        self.manifest = read_manifest(directory)
        self.about: dict[str, Any] = self.manifest.get("about") or {}
        if "identity" not in self.about:
            raise InputError(
                directory, expected="a manifest that says what made the embeddings", got="one of an older version",
                remedy="embed the table again",
            )  # fmt: skip
        self.vectors: Vectors = read_vectors(directory)
        if not self.vectors.ids:
            raise InputError(directory, expected="at least one row", got="none", remedy="embed a table with rows")
        self.table = self._open(Path(table or self.about["table"]), moved=table is not None)
        begins = [int(region == WHOLE) for region in self.vectors.regions]
        self._items = [count - 1 for count in accumulate(begins)]

    def __len__(self) -> int:
        """How many items."""
        return self._items[-1] + 1

    @property
    def is_by_region(self) -> bool:
        """Whether it is region-indexed."""
        return bool(self.manifest.get("regions", False))

    @property
    def most_vectors(self) -> int:
        """Most vectors of one item."""
        return max(self.vectors.regions) + 1

    def item_of(self, vector: int) -> int:
        """The row of the table that a vector is of."""
        return self._items[vector]

    def _open(self, path: Path, *, moved: bool) -> ItemTable:
        if not path.is_file():
            raise InputError(
                f"{self.directory}: table", expected="the item table that was embedded", got=f"no file '{path}'",
                remedy="say where it is now with --table",
            )  # fmt: skip
        if file_fingerprint(path) != self.manifest["input_fingerprint"]:
            raise InputError(
                path, expected=f"the item table that {self.directory} was made of", got="a file of other bytes",
                remedy="embed it again",
            )  # fmt: skip
        return ItemTable(path, media_root=None if moved else self.about["media_root"])


class Searcher:
    """A model and an index that belong together. The model works for one caller at a time, whoever asks.

    Args:
        model: that made the index.
        index: what is searched.

    Raises:
        InputError: another model made the index, or the same one under other settings; what differs is named.
    """

    def __init__(self, model: Embedder, index: Index) -> None:
        self.model, self.index = model, index
        parts = identity(model)
        self.weights = fingerprint(parts.pop("weights"), parts.pop("adapter"))
        self.notes = _check_belong(self.weights, parts, index)
        """What was otherwise when the index was made and may change the last digits of a score, in words."""
        self._one_at_a_time = threading.Lock()

    @classmethod
    def open(
        cls, model: str, directory: Path | str, *, table: Path | str | None = None, **options: Any
    ) -> Self:  # fmt: skip
        """Open both; ``options`` are those of :meth:`Embedder.from_pretrained`."""
        # the index first: a wrong folder is found before a large model is read
        index = Index(directory, table=table)
        return cls(Embedder.from_pretrained(model, **options), index)

    def search(self, query: Item, k: int) -> list[Hit]:
        """The ``k`` best items of one query, as :meth:`search_all`."""
        return self.search_all([query], k)[0]

    def search_all(
        self, queries: Sequence[Item], k: int, *, batch_tokens: int | None = None, workers: int = 0
    ) -> list[list[Hit]]:
        """The ``k`` best items of each query, best first; all items where ``k`` is more than there are.

        An item counts by its best vector; among equal scores the earlier vector is first. ``batch_tokens`` and
        ``workers`` are those of :meth:`Embedder.encode`.

        Raises:
            InputError: a query that the model cannot embed, or a ``k`` below 1.
        """
        if k < 1:
            raise InputError("results", expected="1 or more", got=k, remedy="ask for at least one")
        if not queries:
            return []
        with self._one_at_a_time:
            embedded = self.model.encode(queries, side="query", batch_tokens=batch_tokens, workers=workers)
        vectors = self.index.vectors
        # so many vectors hold at least k items
        enough = min(len(vectors.ids), k * self.index.most_vectors)
        scores, rows = top_k(embedded, vectors.embeddings, enough)
        return [self._hits(*found, k) for found in zip(scores.tolist(), rows.tolist(), strict=True)]

    def masks(self, image: Image) -> list[SamMask]:
        """What the model's SAM takes the regions of a picture for, as :func:`predict_masks`."""
        with self._one_at_a_time:
            return predict_masks(self.model, image)

    def _hits(self, scores: list[float], rows: list[int], k: int) -> list[Hit]:
        hits: dict[int, Hit] = {}
        for score, row in zip(scores, rows, strict=True):
            at = self.index.item_of(row)
            if at not in hits and len(hits) < k:
                hits[at] = self._hit(at, row, score)
        return list(hits.values())

    def _hit(self, at: int, row: int, score: float) -> Hit:
        name, item = self.index.table[at]
        region = self.index.vectors.regions[row]
        return Hit(name, score, with_region(item, region) if self.index.is_by_region else item, region)


def _check_belong(weights: str, parts: dict[str, str], index: Index) -> list[str]:
    """Refuse an index of another model or other settings; what else differs, in words."""
    made_by = index.manifest["model"]
    if weights != index.manifest["weights"]:
        raise InputError(
            f"{index.directory}: weights", expected=f"those of the model that made it, {index.manifest['weights']} "
            f"('{made_by}')", got=f"{weights}", remedy="open that model, or embed the table again with this one",
        )  # fmt: skip
    there: dict[str, str] = index.about["identity"]
    differing = [name for name in sorted(there.keys() | parts.keys()) if there.get(name) != parts.get(name)]
    notes = []
    for name in differing:
        then, now = there.get(name, "none"), parts.get(name, "none")
        if name not in _ELSEWHERE and not name.startswith(_LIBRARY):
            raise InputError(
                f"{index.directory}: {name}", expected=f"{then}, as when it was made", got=now,
                remedy="open the model with the same options, or embed the table again",
            )  # fmt: skip
        what = name.removeprefix(_LIBRARY)
        notes.append("other code of this package" if name == "code" else f"{what} {then} then, {now} now")
    return notes
