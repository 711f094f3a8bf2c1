"""Products of vectors in a small type, and by how much they may miss the exact score.

The bound of a sum of D products in any order, fused or not, is ``gamma_D |q|.|t|`` with ``gamma_D = D u / (1 - D u)``
and the unit roundoff u (Higham, Accuracy and Stability of Numerical Algorithms, 2nd edition, section 3.1), and
``|q|.|t|`` is at most the product of the norms.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

_FLOAT32 = 2.0**-24
_BFLOAT16 = 2.0**-8
# what a flush to zero may lose in one operation, four times over
_TINY = 2.0**-124
_HIGHEST = 1e37


@dataclass(frozen=True)
class Queries:
    """Queries as the products take them.

    Args:
        rows: ``[Q, D]`` in the type of the products.
        norms: of the queries ``[Q]``, float64.
        moved: the norms of what that type rounded away ``[Q]``, float64.
    """

    rows: Tensor
    norms: Tensor
    moved: Tensor

    @classmethod
    def of(cls, queries: Tensor, dtype: torch.dtype) -> "Queries":
        """Round queries to the type."""
        rows = queries.to(dtype)
        return cls(rows, queries.double().norm(dim=1), (queries.double() - rows.double()).norm(dim=1))

    @property
    def rounding(self) -> float:
        """By what part of itself a score may have moved when it was stored in the type."""
        # sums of bfloat16 products are held in float32 and rounded once
        return _BFLOAT16 / (1 - _BFLOAT16) if self.rows.dtype == torch.bfloat16 else 0.0

    def scores(self, block: Tensor) -> Tensor:
        """``[Q, B]`` in the type; inside :func:`whole_products`."""
        return self.rows @ block.to(self.rows.dtype).T

    def bounds(self, largest: float) -> Tensor:
        """By how much a score may miss the exact one, rounded to float32, beyond :attr:`rounding`: ``[Q]``, float64.

        Args:
            largest: no vector of the block has a larger norm.
        """
        width = self.rows.shape[1]
        norms = self.norms + self.moved
        # one more for the rounding of the exact score to float32, and three to spare: sums and norms in float64 lose
        # less than one in any width below 2**26
        bounds = _gamma(width + 4) * norms * largest
        if self.rows.dtype == torch.bfloat16:
            bounds = bounds + (self.moved + _BFLOAT16 * norms) * largest
        return bounds + width * _TINY * (1 + norms + largest)

    def fits(self, largest: float) -> bool:
        """Whether no product and no sum can leave the range of the type."""
        norms = self.norms + self.moved
        return bool((norms * largest < _HIGHEST).all() and (norms < _HIGHEST).all() and largest < _HIGHEST)


def largest_norm(vectors: Tensor) -> float:
    """A number that no norm of float32 ``vectors`` ``[B, D]`` exceeds; not finite where one is not, or is too large."""
    width = vectors.shape[1]
    found = float(torch.linalg.vector_norm(vectors, dim=1).max()) if vectors.numel() else 0.0
    # squares below 2**-126 may be lost
    return found * (1 + _gamma(width + 4)) + width * 2.0**-62


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether products in bfloat16 are faster than in float32 there, and surely summed in float32.

    On a GPU float32 is fast enough, and its kernels may sum parts in bfloat16.
    """
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    return bool(torch.backends.mkldnn.enabled) and (
        torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    )


@contextmanager
def whole_products(device: torch.device) -> Iterator[None]:
    """Let products of float32 matrices inside the block compute in float32: no TF32, no bfloat16, no autocast."""
    settings = torch.backends.cuda.matmul, torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before = [setting.fp32_precision for setting in settings]
    for setting in settings:
        setting.fp32_precision = "ieee"
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        for setting, precision in zip(settings, before, strict=True):
            setting.fp32_precision = precision


def _gamma(terms: int) -> float:
    return terms * _FLOAT32 / (1 - terms * _FLOAT32)
