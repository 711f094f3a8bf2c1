"""The tower's patch embedding as a product of matrices.

A convolution whose kernel is as large as its step is one product, which is several times faster than torch's
convolution in three dimensions. Both frames of a still picture's patch are the same, so that one frame times the sum of
both frames' weights is the same sum, at half the work.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PatchProducts(nn.Module):
    """Stands where the library's ``patch_embed`` stood, with its weights under its names.

    Args:
        embed: the library's module, with the convolution ``proj``.

    Attributes:
        products: whether it computes products; else the convolution over whole patches, as the library does.
    """

    products: bool = True

    def __init__(self, embed: Any) -> None:
        super().__init__()
        self.proj = embed.proj
        self.embed_dim: int = embed.embed_dim

    def forward(self, patches: Tensor) -> Tensor:
        """Flat patches ``[P, 3 * F * p * p]`` -> ``[P, C]``; F is 1 for still pictures, else the convolution's."""
        weight = self.proj.weight
        patches = patches.to(weight.dtype)
        still = patches.shape[-1] < weight[0].numel()
        # an adapter's layer is run as it is
        convolves = not self.products or type(self.proj) is not nn.Conv3d
        if still and (convolves or weight.dtype is not torch.float32):
            # a convolution takes whole patches, and the sum of smaller weights would be rounded
            frames = patches.view(len(patches), weight.shape[1], 1, -1)
            patches, still = frames.expand(-1, -1, weight.shape[2], -1).flatten(1), False
        if convolves:
            convolved: Tensor = self.proj(patches.view(-1, *weight.shape[1:]))
            return convolved.flatten(1)
        return F.linear(patches, (weight.sum(2) if still else weight).flatten(1), self.proj.bias)
