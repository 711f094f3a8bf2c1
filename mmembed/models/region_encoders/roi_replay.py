"""A region as the picture's own features once more: RoIAlign on the map that the language model reads.

GAR (arXiv:2510.18876) replays features of regions; here each cell also says where it lies and what it is part of.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from mmembed.items import Box
from mmembed.models.backbone import Backbone
from mmembed.models.region_encoders.encoder import TokenRegionEncoder
from mmembed.models.region_encoders.geometry import (
    CODE_WIDTH,
    EMPTY,
    WHOLE,
    bins,
    box_edges,
    cell_edges,
    check_patch_maps,
    coverage,
    encode_places,
    mix,
    point_box,
    prompts_in,
    regions_by_medium,
)
from mmembed.models.region_encoders.preparer import RegionPreparer
from mmembed.models.region_prompts import RegionPrompt
from mmembed.models.sequence import Batch, Features, PatchMap
from mmembed.models.settings import RoiReplay

# what a token may be part of, and whether it is the first of its region
_REGION, _INSIDE, _OUTSIDE, _FIRST = range(4)
# as small as a usual embedding of a word: a token is its features, and yet is told from them from the beginning
_KIND_STD = 0.02


class RoiReplayPreparer(RegionPreparer):
    """Keeps tokens free: ``size * size`` for a box or mask, one for each point."""

    def __init__(self, settings: RoiReplay) -> None:
        self.size = settings.size

    def tokens(self, prompt: RegionPrompt | None) -> int:
        """See :meth:`RegionPreparer.tokens`."""
        if prompt is None:
            return 0
        return len(prompt.points) or self.size**2


@dataclass(frozen=True)
class _Cells:
    """The tokens of one region before any feature.

    Args:
        weights: ``[T, h * w]``, how much each cell of the map counts.
        places: ``[T, 4]``, centre, width and height in shares of the picture's sides.
        kinds: ``[T, 4]``, how much each token is of each kind.
    """

    weights: np.ndarray
    places: np.ndarray
    kinds: np.ndarray


class RoiReplayEncoder(TokenRegionEncoder):
    """RoIAlign of the projected features, plus where each cell lies, plus what it is part of.

    A mask's cell is the mean of what is under the mask, RoIAlign of the features times the mask over RoIAlign of the
    mask; one with nothing under it is what a box's would be, but is not told as part of the region. What the tower did
    not see, because it was cut off the picture, counts nothing.

    Args:
        settings: of the encoder.
        backbone: whose features are replayed.
    """

    def __init__(self, settings: RoiReplay, backbone: Backbone) -> None:
        super().__init__()
        check_patch_maps(backbone)
        self.settings = settings
        self.place = nn.Linear(CODE_WIDTH, backbone.width, bias=False)
        nn.init.zeros_(self.place.weight)
        self.kind = nn.Parameter(torch.randn(4, backbone.width) * _KIND_STD)

    def tokens(self, batch: Batch, features: Features, backbone: Backbone) -> Tensor:
        """See :meth:`TokenRegionEncoder.tokens`."""
        maps = backbone.patch_maps(batch, features.maps)
        prompts = prompts_in(batch)
        cells: dict[int, _Cells] = {}
        replayed: dict[int, Tensor] = {}
        for medium, numbers in regions_by_medium(batch):
            patches = maps[medium]
            assert patches is not None  # only a still picture has regions
            for number in numbers:
                cells[number] = self._cells(prompts[number], patches)
            seen = mix(np.concatenate([cells[number].weights for number in numbers]), patches.features)
            lengths = [len(cells[number].weights) for number in numbers]
            replayed |= dict(zip(numbers, torch.split(seen, lengths), strict=True))
        order = range(len(prompts))
        return torch.cat([replayed[number] for number in order]) + self._told([cells[number] for number in order])

    def _told(self, regions: list[_Cells]) -> Tensor:
        """Where each token lies and what it is part of, ``[T, D]``."""
        dtype, device = self.kind.dtype, self.kind.device
        places, kinds = (
            torch.from_numpy(np.concatenate(parts)).to(device, torch.float32)
            for parts in ([cells.places for cells in regions], [cells.kinds for cells in regions])
        )
        told: Tensor = self.place(encode_places(places).to(dtype)) + kinds.to(dtype) @ self.kind
        return told.float()

    def _cells(self, prompt: RegionPrompt, patches: PatchMap) -> _Cells:
        if not prompt.points:
            return self._area(prompt, patches)
        boxes = [point_box(point, self.settings.point_side, prompt.size) for point in prompt.points]
        kinds = np.zeros((len(boxes), 4))
        for row, (_, _, label) in zip(kinds, prompt.points, strict=True):
            row[_INSIDE if label else _OUTSIDE] = 1
        kinds[0, _FIRST] = 1
        weights = np.concatenate([_weights(box, 1, patches, None) for box in boxes])
        return _Cells(weights, np.concatenate([_places(box, 1) for box in boxes]), kinds)

    def _area(self, prompt: RegionPrompt, patches: PatchMap) -> _Cells:
        """Of a box, or of a mask by the box around it."""
        size, box = self.settings.size, prompt.bounds
        kinds = np.zeros((size**2, 4))
        shares = 1 if prompt.mask is None else coverage(prompt.mask, box_edges(box, size, size)).reshape(-1)
        kinds[:, _REGION] = shares
        kinds[0, _FIRST] = 1
        return _Cells(_weights(box, size, patches, prompt.mask), _places(box, size), kinds)


def _weights(box: Box, size: int, patches: PatchMap, mask: np.ndarray | None) -> np.ndarray:
    """How much each cell of the map counts in each cell of the region, ``[size * size, h * w]``; a row sums to 1."""
    height, width = patches.features.shape[:2]
    x0, y0, x1, y1 = patches.cells(box)
    rows, columns = bins(y0, y1, size, height), bins(x0, x1, size, width)
    aligned = (rows[:, None, :, None] * columns[None, :, None, :]).reshape(size**2, height * width)
    edges = cell_edges(patches.frame, height, width)
    seen = aligned * coverage(WHOLE, edges).reshape(-1)
    if mask is not None:
        under = aligned * coverage(mask, edges).reshape(-1)
        seen = np.where(under.sum(-1, keepdims=True) > EMPTY, under, seen)
    weights: np.ndarray = seen / seen.sum(-1, keepdims=True).clip(min=EMPTY)
    return weights


def _places(box: Box, size: int) -> np.ndarray:
    """Centre, width and height of each cell of a region, in shares of the picture's sides ``[size * size, 4]``."""
    rows, columns = box_edges(box, size, size)
    ys, xs = np.meshgrid((rows[1:] + rows[:-1]) / 2, (columns[1:] + columns[:-1]) / 2, indexing="ij")
    sides = np.broadcast_to([(box[2] - box[0]) / size, (box[3] - box[1]) / size], (size**2, 2))
    return np.concatenate([np.stack([xs, ys], axis=-1).reshape(-1, 2), sides], axis=1)
