"""How rows are encoded: in windows, in which they are sorted, equal ones pass once, and chunks keep a token budget."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from mmembed.models.chunks import plan_chunks
from mmembed.models.features import SharedFeatures
from mmembed.models.sequence import Batch, Features, Row, collate
from mmembed.models.settings import Speed

# rows are prepared and sorted in windows of so many chunks: enough to sort well, little enough to hold
WINDOW_CHUNKS = 16
MAX_STRETCH = 4
"""A window grows to so many times its size while its rows show the same media."""
GPU_TOKENS, CPU_TOKENS = 16384, 2048
SHARED_BYTES = 256 << 20
"""Features that a call of encode keeps for media of the windows before."""
MAX_PADDING = 0.2
"""Largest share of a chunk that is padding when encoding."""
MAX_PACKED_PADDING = 0.75
"""The same of rows that pass packed, for which only keys and values of the last layer are laid side by side."""


def usual_tokens(device: torch.device) -> int:
    """Tokens that pass through a model together where nobody says."""
    return GPU_TOKENS if device.type == "cuda" else CPU_TOKENS


@dataclass(frozen=True)
class Encoding:
    """One call of encode.

    Args:
        embed: batch and its features -> embeddings ``[B, D]``.
        features: of media, shared by the chunks.
        packs: whether rows of up to so many tokens pass packed.
        speed: what is computed faster.
        device: where the model is.
        batch_tokens: most tokens of a chunk.
        window_tokens: tokens at which a window ends.
    """

    embed: Callable[[Batch, Features], Tensor]
    features: SharedFeatures
    packs: Callable[[int], bool]
    speed: Speed
    device: torch.device
    batch_tokens: int
    window_tokens: int

    def write(self, rows: Iterable[Row], out: Tensor) -> None:
        """Encode rows, and write the vector of each where it stands in ``out`` ``[N, D]``."""
        known: dict[str, int] = {}
        for window in self._windows(rows):
            self._write_window(window, out, known)

    def _windows(self, rows: Iterable[Row]) -> Iterator[list[tuple[int, Row]]]:
        window: list[tuple[int, Row]] = []
        held, last = 0, set[str]()
        for i, row in enumerate(rows):
            media = {medium.fingerprint for medium in row.media}
            # rows about one picture stay together, or it would pass the tower again; but not for ever
            if held >= self.window_tokens * (1 if media.isdisjoint(last) else MAX_STRETCH):
                yield window
                window, held = [], 0
            window.append((i, row))
            held, last = held + len(row), media
        if window:
            yield window

    def _write_window(self, window: list[tuple[int, Row]], out: Tensor, known: dict[str, int]) -> None:
        """Encode each distinct row and medium once, and write a row's vector to every place it stands at.

        Args:
            window: rows and their places in ``out``.
            out: where the vectors go.
            known: a place of each row of the windows before, by its name; this window's are added.
        """
        places: dict[str, list[int]] = {}
        distinct: dict[str, Row] = {}
        for i, row in window:
            name = row.fingerprint if self.speed.deduplicate else str(i)
            if name in known:
                out[i] = out[known[name]]
                continue
            places.setdefault(name, []).append(i)
            distinct[name] = row if self.speed.deduplicate else _told_apart(row, i)
        if not distinct:
            return
        known |= {name: at[0] for name, at in places.items()}
        names = list(distinct)
        seen = Counter(medium.fingerprint for row in distinct.values() for medium in row.media)
        self.features.expect({name for name, times in seen.items() if times > 1})
        with self._arithmetic():
            for chunk in self._chunks([len(distinct[name]) for name in names]):
                batch = collate([distinct[names[i]] for i in chunk]).to(self.device)
                for i, vector in zip(chunk, self.embed(batch, self.features.of(batch)).cpu(), strict=True):
                    out[places[names[i]]] = vector

    def _chunks(self, lengths: list[int]) -> list[list[int]]:
        packed = self.packs(max(lengths))
        max_padding = (MAX_PACKED_PADDING if packed else MAX_PADDING) if self.speed.sort else None
        return plan_chunks(
            lengths, max_tokens=self.batch_tokens, max_padding=max_padding, sort=self.speed.sort, packed=packed
        )

    def _arithmetic(self) -> AbstractContextManager[Any]:
        """The autocast that the settings ask for when encoding; else what is on already stays."""
        if self.speed.autocast is None:
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)


def _told_apart(row: Row, number: int) -> Row:
    """The row with media that equal no others, so that each is embedded by itself."""
    media = (replace(medium, fingerprint=f"{medium.fingerprint}/{number}/{j}") for j, medium in enumerate(row.media))
    return replace(row, media=tuple(media))
