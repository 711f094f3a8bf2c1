"""Pictures for SAM 2's own image encoder."""

import numpy as np
import torch
from PIL.Image import Image as Picture
from PIL.Image import Resampling
from torch import Tensor

GUIDE = "guide "
"""Begins the name under which a picture's encoding is kept, where SAM 2 sees the picture itself."""


def squash(picture: Picture, side: int) -> Tensor:
    """The picture as a square, its aspect lost, as SAM 2 sees pictures: uint8 ``[3, side, side]``."""
    square = picture.convert("RGB").resize((side, side), Resampling.BILINEAR)
    return torch.from_numpy(np.array(square)).permute(2, 0, 1).contiguous()
