"""Rows, batches and token sequences, all flat: the tokens of a batch one after another, with the length of each row.

Flat means no padding until a kernel needs it, one place where inserted tokens move lengths, positions, kinds and
deep-stack masks together, and poolers that are sums over segments. Shapes: B rows, T tokens of all rows together,
D width, P blocks of pixels of all media together, M distinct media, V visual tokens.
"""

from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from mmembed.files import fingerprint
from mmembed.models.prompts import Kind
from mmembed.models.region_prompts import RegionSlot
from mmembed.models.settings import Side

KEPT_FREE = -1
"""Id of a token that a region encoder fills."""


@dataclass(frozen=True)
class PreparedMedium:
    """A picture or clip as blocks of pixels (patches, tiles, frames: the family says), before normalisation.

    Args:
        pixels: uint8 ``[P, 3, F, p, p]``; F is 1 for a still picture, else the tower's temporal patch.
        grid: blocks in time, height and width, as the family counts them.
        fingerprint: names the pixels and the preprocessing.
        size: width and height as decoded.
        marks: uint8 ``[P, F, p, p]``, 255 where a region is; None without one.
        guide: uint8 ``[3, S, S]``, the picture for a region encoder's own tower; None where it has none.
    """

    pixels: Tensor
    grid: tuple[int, int, int]
    fingerprint: str
    size: tuple[int, int]
    marks: Tensor | None = None
    guide: Tensor | None = None

    @property
    def nbytes(self) -> int:
        """Bytes that it takes in memory."""
        return sum(tensor.nbytes for tensor in (self.pixels, self.marks, self.guide) if tensor is not None)


@dataclass(frozen=True)
class Row:
    """One Item as token ids, ready to be batched.

    Args:
        ids: token ids ``[T]``, a medium's placeholder once for each of its tokens.
        kinds: Kind of each token ``[T]``, uint8.
        positions: ``[3, T]`` time, height and width positions.
        media: the media in reading order.
        side: query or target.
        regions: what fills the tokens that are kept free, in their order.
    """

    ids: Tensor
    kinds: Tensor
    positions: Tensor
    media: tuple[PreparedMedium, ...]
    side: Side
    regions: tuple[RegionSlot, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def fingerprint(self) -> str:
        """Names everything the embedding depends on besides the weights."""
        tensors = (self.ids, self.kinds, self.positions)
        content = [t.contiguous().numpy().tobytes() for t in tensors]
        regions = (slot.fingerprint() for slot in self.regions)
        return fingerprint(self.side, *content, *(m.fingerprint for m in self.media), *regions)


@dataclass
class Batch:
    """Rows on their way through the model; each distinct medium is held once.

    Args:
        ids: ``[T]``.
        kinds: ``[T]``.
        positions: ``[3, T]``.
        lengths: tokens of each row ``[B]``.
        is_query: which rows are queries ``[B]``.
        pixels: uint8 ``[P, 3, F, p, p]``, None without media.
        grids: ``[M, 3]`` blocks in time, height, width of each distinct medium.
        blocks: how many blocks of ``pixels`` each distinct medium has ``[M]``.
        sizes: ``[M, 2]`` width and height of each distinct medium as decoded.
        slots: for every place of a medium in reading order, which distinct medium stands there ``[S]``.
        slot_counts: how many of ``slots`` each row has ``[B]``.
        media: fingerprints of the distinct media, in the order of ``grids``.
        regions: what fills the tokens that are kept free, in their order; each medium is its number in ``grids``.
        marks: uint8 ``[P, F, p, p]`` beside ``pixels``, zero where no region is; None without regions in pixels.
        guides: uint8 ``[M, 3, S, S]``, pictures for a region encoder's own tower, zero for a medium without one; None
            where no medium has any.
    """

    ids: Tensor
    kinds: Tensor
    positions: Tensor
    lengths: Tensor
    is_query: Tensor
    pixels: Tensor | None
    grids: Tensor
    blocks: Tensor
    sizes: Tensor
    slots: Tensor
    slot_counts: Tensor
    media: list[str] = field(default_factory=list)
    regions: list[RegionSlot] = field(default_factory=list)
    marks: Tensor | None = None
    guides: Tensor | None = None

    @property
    def kept_free(self) -> Tensor:
        """Which tokens a region encoder fills ``[T]``."""
        return (self.ids == KEPT_FREE) & (self.kinds == Kind.REGION)

    def __len__(self) -> int:
        return len(self.lengths)

    def to(self, device: torch.device | str) -> "Batch":
        """The batch on ``device``."""
        moved: dict[str, Any] = {
            f.name: value.to(device, non_blocking=True)
            for f in fields(self)
            if isinstance(value := getattr(self, f.name), Tensor)
        }
        return replace(self, **moved)


def collate(rows: SequenceOf[Row]) -> Batch:
    """Join rows into a Batch; equal media of different rows are held, and will be encoded, once."""
    distinct: dict[str, PreparedMedium] = {}
    for row in rows:
        for medium in row.media:
            distinct.setdefault(medium.fingerprint, medium)
    order = {name: i for i, name in enumerate(distinct)}
    frames = max((m.pixels.shape[2] for m in distinct.values()), default=1)
    pixels = [m.pixels.expand(-1, -1, frames, -1, -1) for m in distinct.values()]
    return Batch(
        ids=torch.cat([row.ids for row in rows]),
        kinds=torch.cat([row.kinds for row in rows]),
        positions=torch.cat([row.positions for row in rows], dim=1),
        lengths=torch.tensor([len(row) for row in rows]),
        is_query=torch.tensor([row.side == "query" for row in rows]),
        pixels=torch.cat(pixels) if pixels else None,
        grids=torch.tensor([m.grid for m in distinct.values()], dtype=torch.long).reshape(-1, 3),
        blocks=torch.tensor([len(m.pixels) for m in distinct.values()], dtype=torch.long),
        sizes=torch.tensor([m.size for m in distinct.values()], dtype=torch.long).reshape(-1, 2),
        slots=torch.tensor([order[m.fingerprint] for row in rows for m in row.media], dtype=torch.long),
        slot_counts=torch.tensor([len(row.media) for row in rows]),
        media=list(distinct),
        regions=[
            replace(slot, row=i, medium=order[row.media[slot.medium].fingerprint])
            for i, row in enumerate(rows)
            for slot in row.regions
        ],
        marks=_marks(list(distinct.values()), frames),
        guides=_guides([m.guide for m in distinct.values()]),
    )


def _marks(media: SequenceOf[PreparedMedium], frames: int) -> Tensor | None:
    if all(m.marks is None for m in media):
        return None
    each = (torch.zeros_like(m.pixels[:, 0]) if m.marks is None else m.marks for m in media)
    return torch.cat([marks.expand(-1, frames, -1, -1) for marks in each])


def _guides(guides: SequenceOf[Tensor | None]) -> Tensor | None:
    some = next((guide for guide in guides if guide is not None), None)
    if some is None:
        return None
    return torch.stack([torch.zeros_like(some) if guide is None else guide for guide in guides])


@dataclass(frozen=True)
class Features:
    """What the vision tower gives.

    Args:
        maps: one ``[v, D]`` for each distinct medium: its tokens in time, height, width order.
        layers: the same for each extra layer fed into the language model (Qwen3-VL's deep stack).
        taps: the same for each layer of the tower that a region encoder asked for, ``[v, C]`` of the tower's width C.
    """

    maps: list[Tensor]
    layers: list[list[Tensor]] = field(default_factory=list)
    taps: list[list[Tensor]] = field(default_factory=list)


@dataclass(frozen=True)
class PatchMap:
    """Features of a still picture where they lie in it.

    Args:
        features: ``[h, w, C]``.
        frame: ``(x0, y0, x1, y1)``, where in cells of the map the picture lies; beyond the map where it was cut, within
            it where it was padded.
    """

    features: Tensor
    frame: tuple[float, float, float, float]

    def cells(self, box: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
        """A box in shares of the picture's sides, in cells of the map."""
        left, top, right, bottom = self.frame
        x0, y0, x1, y1 = box
        wide, high = right - left, bottom - top
        return (left + x0 * wide, top + y0 * high, left + x1 * wide, top + y1 * high)


@dataclass(frozen=True)
class Insertion:
    """Tokens to put into one row of a Sequence.

    Args:
        row: which row.
        at: index in that row, before insertion, of the token the new ones stand in front of; the row's length appends.
        embeds: ``[R, D]``.
        positions: ``[3, R]``; whoever inserts tokens supplies their positions.
        kind: what the tokens are.
    """

    row: int
    at: int
    embeds: Tensor
    positions: Tensor
    kind: Kind = Kind.REGION


@dataclass(frozen=True)
class Sequence:
    """Embedded tokens of a batch, flat.

    Args:
        embeds: ``[T, D]``.
        ids: token ids ``[T]``, -1 for tokens that were inserted.
        lengths: tokens of each row ``[B]``.
        positions: ``[3, T]``.
        kinds: ``[T]``.
        visual: which tokens take part in the deep stack ``[T]``.
        is_query: which rows are queries ``[B]``.
        deepstack: for each fed layer ``[V, D]``, in the order of the visual tokens.
        context: for each row the features ``[v, D]`` of its media, for layers that attend to them (Llama-3.2-Vision).
    """

    embeds: Tensor
    ids: Tensor
    lengths: Tensor
    positions: Tensor
    kinds: Tensor
    visual: Tensor
    is_query: Tensor
    deepstack: list[Tensor] = field(default_factory=list)
    context: list[list[Tensor]] = field(default_factory=list)

    def select(self, rows: Tensor) -> "Sequence":
        """The sequence with only the rows that ``rows`` (bool ``[B]``) says, in their order."""
        kept = torch.repeat_interleave(rows, self.lengths)
        return replace(
            self,
            embeds=self.embeds[kept],
            ids=self.ids[kept],
            lengths=self.lengths[rows],
            positions=self.positions[:, kept],
            kinds=self.kinds[kept],
            visual=self.visual[kept],
            is_query=self.is_query[rows],
            deepstack=[layer[kept[self.visual]] for layer in self.deepstack],
            context=[media for media, is_kept in zip(self.context, rows.tolist(), strict=False) if is_kept],
        )

    def insert(self, insertions: SequenceOf[Insertion]) -> "Sequence":
        """The sequence with more tokens; lengths, positions, kinds and deep-stack mask move together.

        Insertions at the same place keep the order given.

        Raises:
            ValueError: a row or index outside the sequence, or tokens and positions of different number.
        """
        if not insertions:
            return self
        starts = self.lengths.cumsum(0) - self.lengths
        places, added = [], torch.zeros_like(self.lengths)
        for insertion in insertions:
            self._check(insertion)
            size = len(insertion.embeds)
            places.append(torch.full((size,), int(starts[insertion.row]) + insertion.at, device=self.embeds.device))
            added[insertion.row] += size
        old = len(self.embeds)
        # a new token sorts before the old token it stands in front of; stable, so the given order holds
        keys = torch.cat([2 * torch.cat(places), 2 * torch.arange(old, device=self.embeds.device) + 1])
        keys = self._keep_in_row(keys, insertions)
        order = keys.sort(stable=True).indices
        new = torch.cat([i.embeds for i in insertions]).to(self.embeds.dtype)
        kinds = torch.cat([torch.full((len(i.embeds),), int(i.kind), dtype=self.kinds.dtype) for i in insertions])
        positions = torch.cat([i.positions.to(self.positions) for i in insertions], dim=1)
        return replace(
            self,
            embeds=torch.cat([new, self.embeds])[order],
            ids=torch.cat([self.ids.new_full((len(new),), -1), self.ids])[order],
            lengths=self.lengths + added,
            positions=torch.cat([positions, self.positions], dim=1)[:, order],
            kinds=torch.cat([kinds.to(self.kinds.device), self.kinds])[order],
            visual=torch.cat([self.visual.new_zeros(len(new)), self.visual])[order],
        )

    def _check(self, insertion: Insertion) -> None:
        if not 0 <= insertion.row < len(self.lengths):
            raise ValueError(f"insertion.row: expected 0 to {len(self.lengths) - 1}, got {insertion.row}")
        length = int(self.lengths[insertion.row])
        if not 0 <= insertion.at <= length:
            raise ValueError(f"insertion.at: expected 0 to {length} in row {insertion.row}, got {insertion.at}")
        if insertion.positions.shape != (3, len(insertion.embeds)):
            raise ValueError(
                f"insertion.positions: expected (3, {len(insertion.embeds)}), got {tuple(insertion.positions.shape)}"
            )

    def _keep_in_row(self, keys: Tensor, insertions: SequenceOf[Insertion]) -> Tensor:
        """Rows with appended tokens sort them before the next row's first token and its own insertions."""
        row_of_new = torch.cat([torch.full((len(i.embeds),), i.row, device=keys.device) for i in insertions])
        row_of_old = torch.repeat_interleave(torch.arange(len(self.lengths), device=keys.device), self.lengths)
        return keys + torch.cat([row_of_new, row_of_old]) * 2 * (len(self.embeds) + 1)


@dataclass(frozen=True)
class Hidden:
    """Hidden states of a batch, flat.

    Args:
        states: of the last layer, after the final norm ``[T, D]``; with ``places`` of those tokens alone ``[B, D]``.
        ids: as in Sequence; lengths, kinds and is_query alike.
        lengths: see Sequence.
        kinds: see Sequence.
        is_query: see Sequence.
        layers: states ``[T, D]`` of the layers that were asked for, in that order.
        places: in each row the place of the only token that the last layer was computed for ``[B]``; None is all.
    """

    states: Tensor
    ids: Tensor
    lengths: Tensor
    kinds: Tensor
    is_query: Tensor
    layers: list[Tensor] = field(default_factory=list)
    places: Tensor | None = None

    @property
    def rows(self) -> Tensor:
        """Which row each token belongs to ``[T]``."""
        return torch.repeat_interleave(torch.arange(len(self.lengths), device=self.lengths.device), self.lengths)


def rejoin(groups: list[Tensor], parts: list[Hidden], sequence: Sequence) -> Hidden:
    """The states of rows that ran apart, in the order of the sequence."""
    tokens = [torch.repeat_interleave(rows, sequence.lengths).nonzero()[:, 0] for rows in groups]
    order = torch.cat(tokens).argsort()
    layers = [torch.cat(layer)[order] for layer in zip(*(part.layers for part in parts), strict=True)]
    places = [part.places for part in parts if part.places is not None]
    if places:
        # one state a row
        order = torch.cat([rows.nonzero()[:, 0] for rows in groups]).argsort()
    states = torch.cat([part.states for part in parts])[order]
    read = torch.cat(places)[order] if places else None
    return Hidden(states, sequence.ids, sequence.lengths, sequence.kinds, sequence.is_query, layers, read)
