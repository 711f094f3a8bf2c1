"""A second patch embedding, of the mask of all regions (Alpha-CLIP, arXiv:2312.03818; DAM, arXiv:2504.16072)."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import PIL.Image
from PIL.Image import Image as Picture
from torch import Tensor, nn

from mmembed.items import Image, Media
from mmembed.models.backbone import Backbone
from mmembed.models.region_encoders.encoder import RegionEncoder
from mmembed.models.region_encoders.geometry import mask_of
from mmembed.models.region_encoders.preparer import RegionPreparer
from mmembed.models.region_prompts import RegionSlot, Size, prompts_of
from mmembed.models.sequence import Batch, PreparedMedium
from mmembed.models.settings.regions.marks import MaskChannel

_FULL = 255


class MaskChannelPreparer(RegionPreparer):
    """Cuts the mask of a picture's regions as the picture is cut.

    Args:
        settings: how large the square that a point marks is.
    """

    changes_pixels: ClassVar[bool] = True

    def __init__(self, settings: MaskChannel) -> None:
        self.settings = settings

    def slots(self, number: int, medium: Media, size: Size) -> Sequence[RegionSlot]:
        """See :meth:`RegionPreparer.slots`; there are none."""
        return []

    def complete(
        self, prepared: PreparedMedium, medium: Media, picture: Picture, cut: Callable[[Picture], Tensor]
    ) -> PreparedMedium:
        """See :meth:`RegionPreparer.complete`; gives ``marks``."""
        if not isinstance(medium, Image) or not medium.regions:
            return prepared
        prompts = prompts_of(medium, picture.size)
        union = np.any([mask_of(prompt, self.settings.point_side) for prompt in prompts], axis=0)
        drawn = (PIL.Image.fromarray(union).convert("RGB"), PIL.Image.new("RGB", picture.size))
        # what a family pads with is in both and so in neither, whatever its colour
        marked, blank = (cut(mask)[:, 0] for mask in drawn)
        return replace(prepared, marks=marked - blank.minimum(marked))


class MaskChannelEncoder(RegionEncoder):
    """Adds to the state of each patch what a bias-free linear layer, begun at zero, makes of its part of the mask.

    Args:
        backbone: whose patches are marked.

    Raises:
        InputError: a family whose patches cannot be marked.
    """

    marks_patches: ClassVar[bool] = True

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        embedding = backbone.patch_embedding()
        frames, height, width = embedding.patch
        sides = (height, width)
        self.channel = nn.Conv2d(frames, embedding.width, kernel_size=sides, stride=sides, bias=False)
        nn.init.zeros_(self.channel.weight)

    @contextmanager
    def marking(self, batch: Batch, backbone: Backbone) -> Iterator[None]:
        """See :meth:`RegionEncoder.marking`; without a region in the batch nothing is added.

        No family computes its patch embedding anew where it recomputes activations, so the hook is not needed again.
        """
        if batch.marks is None:
            yield
            return
        # found anew each time, for an adapter may have wrapped it
        embedding = backbone.patch_embedding()
        marks = embedding.blocks(batch, batch.marks.to(self.channel.weight.dtype) / _FULL)
        # a still picture is repeated in time
        added: Tensor = self.channel(marks.expand(-1, embedding.patch[0], -1, -1))

        def add(module: nn.Module, args: Any, output: Tensor) -> Tensor:
            return output + added.reshape(output.shape).to(output.dtype)

        handle = embedding.module.register_forward_hook(add)
        try:
            yield
        finally:
            handle.remove()
