"""Vectors of several frames or pictures to one."""

import torch
from torch import Tensor


def mean_vectors(vectors: Tensor, sizes: Tensor, *, as_they_are: bool) -> Tensor:
    """The mean of each group of vectors.

    Args:
        vectors: ``[N, D]``, group by group.
        sizes: vectors of each group ``[M]``, none 0.
        as_they_are: else the mean of their directions, scaled by their average length.

    Returns:
        ``[M, D]``.
    """
    if as_they_are:
        return _mean(vectors, sizes)
    lengths = vectors.norm(dim=-1, keepdim=True)
    return _mean(vectors / lengths.clamp_min(torch.finfo(vectors.dtype).tiny), sizes) * _mean(lengths, sizes)


def _mean(vectors: Tensor, sizes: Tensor) -> Tensor:
    groups = torch.repeat_interleave(torch.arange(len(sizes), device=sizes.device), sizes)
    return vectors.new_zeros(len(sizes), vectors.shape[1]).index_add(0, groups, vectors) / sizes[:, None]
