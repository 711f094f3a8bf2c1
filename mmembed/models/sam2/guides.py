"""Pictures for SAM 2's own image encoder."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL.Image import Image as Picture
from PIL.Image import Resampling
from torch import Tensor

from mmembed.models.sam2.sam import Encoded, Sam
from mmembed.models.sequence import Batch

GUIDE = "guide "
"""Begins the name under which a picture's encoding is kept, where SAM 2 sees the picture itself."""


def squash(picture: Picture, side: int) -> Tensor:
    """The picture as a square, its aspect lost, as SAM 2 sees pictures: uint8 ``[3, side, side]``."""
    square = picture.convert("RGB").resize((side, side), Resampling.BILINEAR)
    return torch.from_numpy(np.array(square)).permute(2, 0, 1).contiguous()


def encode_guides(sam: Sam, batch: Batch, media: Sequence[int], *, masks: bool = False) -> list[Encoded]:
    """The pictures of a batch as SAM 2 encodes them; see :meth:`Sam.encode`.

    Args:
        sam: the encoder.
        batch: whose preparer gave a guide of every still picture.
        media: numbers of the pictures, one as often as wanted.
        masks: also keep what masks are made of.
    """
    guides = batch.guides
    assert guides is not None, "the preparer gives one of every still picture"
    names = [GUIDE + batch.media[medium] for medium in media]
    return sam.encode(names, lambda i: sam.guide_pixels(guides[media[i]]), masks=masks)
