"""A region as features pooled under its mask, and its shape (Osprey, arXiv:2312.10032), by SAM 2's mask if wanted."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL.Image import Image as Picture
from torch import Tensor, nn

from mmembed.items import Media, Video
from mmembed.models.backbone import Backbone
from mmembed.models.region_encoders.encoder import TokenRegionEncoder
from mmembed.models.region_encoders.geometry import (
    EMPTY,
    box_edges,
    cell_edges,
    check_patch_maps,
    coverage,
    mask_of,
    mix,
    prompts_in,
    regions_by_medium,
)
from mmembed.models.region_encoders.preparer import RegionPreparer
from mmembed.models.region_prompts import RegionPrompt
from mmembed.models.sam2.guides import encode_guides, squash
from mmembed.models.sam2.opening import open_sam, sam_side
from mmembed.models.sam2.prompts import sam_prompt
from mmembed.models.sequence import Batch, Features, PatchMap, PreparedMedium
from mmembed.models.settings import MaskPool

# the region token and the shape token
_TOKENS = 2
# logarithm of the area, and the box around it
_FACTS = 5


class MaskPoolPreparer(RegionPreparer):
    """Keeps two tokens free for each region, and shows SAM 2 the picture where it makes the masks."""

    def __init__(self, settings: MaskPool) -> None:
        self.settings = settings
        self.side = None if settings.sam is None else sam_side(settings.sam, settings.sam_revision)

    def tokens(self, prompt: RegionPrompt | None) -> int:
        """See :meth:`RegionPreparer.tokens`.

        Raises:
            InputError: points that leave nothing.
        """
        if prompt is None:
            return 0
        if prompt.points and self.side is None:
            mask_of(prompt, self.settings.point_side)
        return _TOKENS

    def complete(
        self, prepared: PreparedMedium, medium: Media, picture: Picture, cut: Callable[[Picture], Tensor]
    ) -> PreparedMedium:
        """See :meth:`RegionPreparer.complete`."""
        if self.side is None or isinstance(medium, Video):
            return prepared
        return replace(prepared, guide=squash(picture, self.side))


@dataclass(frozen=True)
class _Pooling:
    """One region before any feature.

    Args:
        weights: ``[h * w]``, how much each cell of the map counts.
        facts: ``[5]``.
        shape: ``[side * side]``, its mask made small.
    """

    weights: np.ndarray
    facts: np.ndarray
    shape: np.ndarray


class MaskPoolEncoder(TokenRegionEncoder):
    """Means of features under a mask, of the projected map and of layers of the tower, and the mask made small.

    The first token is the mean of what the language model reads, plus what is made of all means, each normalised, with
    the area and the box around the mask, which a mean does not say. The second is made of the mask within that box,
    with the same facts.

    Args:
        settings: of the encoder.
        backbone: whose features are pooled.

    Raises:
        InputError: a backbone without a map of patches, or without the layers.
    """

    def __init__(self, settings: MaskPool, backbone: Backbone) -> None:
        super().__init__()
        check_patch_maps(backbone)
        self.settings = settings
        widths = [backbone.width, *(backbone.tap(settings.layers) if settings.layers else [])]
        self.norms = nn.ModuleList(nn.LayerNorm(width) for width in widths)
        self.region = _perceptron(sum(widths) + _FACTS, backbone.width)
        self.shape = _perceptron(settings.shape_side**2 + _FACTS, backbone.width)
        self.sam = None if settings.sam is None else open_sam(settings.sam, settings.sam_revision)
        self.unsaved = () if self.sam is None else ("sam.",)

    def tokens(self, batch: Batch, features: Features, backbone: Backbone) -> Tensor:
        """See :meth:`TokenRegionEncoder.tokens`."""
        layers = [backbone.patch_maps(batch, layer) for layer in (features.maps, *features.taps)]
        prompts, masks = prompts_in(batch), self._masks(batch)
        poolings: dict[int, _Pooling] = {}
        pooled: dict[int, list[Tensor]] = {}
        for medium, numbers in regions_by_medium(batch):
            maps = [patches for layer in layers if (patches := layer[medium]) is not None]
            for number in numbers:
                poolings[number] = self._pooling(prompts[number], masks[number], maps[0])
            weights = np.stack([poolings[number].weights for number in numbers])
            means = [mix(weights, patches.features) for patches in maps]
            pooled |= {number: [mean[row] for mean in means] for row, number in enumerate(numbers)}
        order = range(len(prompts))
        return self._made([pooled[number] for number in order], [poolings[number] for number in order])

    def _made(self, pooled: list[list[Tensor]], poolings: list[_Pooling]) -> Tensor:
        """``[2 R, D]`` of each region's means, by layer."""
        weight = next(self.region.parameters())
        dtype, device = weight.dtype, weight.device
        means = [torch.stack(layer) for layer in zip(*pooled, strict=True)]
        facts, shapes = (
            torch.from_numpy(np.stack(parts)).to(device, dtype)
            for parts in ([one.facts for one in poolings], [one.shape for one in poolings])
        )
        normalised = [norm(mean.to(dtype)) for norm, mean in zip(self.norms, means, strict=True)]
        region = means[0] + self.region(torch.cat([*normalised, facts], dim=-1)).float()
        shape = self.shape(torch.cat([shapes, facts], dim=-1)).float()
        return torch.stack([region, shape], dim=1).flatten(0, 1)

    def _pooling(self, prompt: RegionPrompt, mask: np.ndarray | None, patches: PatchMap) -> _Pooling:
        side, (height, width) = self.settings.shape_side, patches.features.shape[:2]
        edges = cell_edges(patches.frame, height, width)
        if mask is None and prompt.box is not None:
            (x0, y0, x1, y1), shape = prompt.box, np.ones(side**2)
            covered, area = coverage(prompt.box, edges), (x1 - x0) * (y1 - y0)
        else:
            mask = mask_of(prompt, self.settings.point_side) if mask is None else mask
            x0, y0, x1, y1 = box = RegionPrompt(prompt.size, mask=mask).bounds
            covered, area = coverage(mask, edges), mask.mean()
            shape = coverage(mask, box_edges(box, side, side)).reshape(-1)
        # a region all of which was cut off the picture has nothing to pool
        weights = covered.reshape(-1) / covered.sum().clip(min=EMPTY)
        return _Pooling(weights, np.array([np.log(area), x0, y0, x1, y1]), shape)

    def _masks(self, batch: Batch) -> list[np.ndarray | None]:
        """What SAM 2 makes of each box and of each region's points; None where it makes nothing, or is not asked."""
        found: list[np.ndarray | None] = [None] * len(batch.regions)
        asked = [i for i, prompt in enumerate(prompts_in(batch)) if prompt.mask is None]
        if self.sam is None or not asked:
            return found
        prompts = [prompts_in(batch)[i] for i in asked]
        encoded = encode_guides(self.sam, batch, [batch.regions[i].medium for i in asked], masks=True)
        told = [sam_prompt(prompt, self.sam.side) for prompt in prompts]
        made = self.sam.masks(encoded, told, [prompt.size for prompt in prompts])
        for i, one in zip(asked, made, strict=True):
            mask = one.mask.numpy()
            found[i] = mask if mask.any() else None
        return found


def _perceptron(given: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(given, width), nn.GELU(), nn.Linear(width, width))
