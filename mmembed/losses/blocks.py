"""Log-sum-exp over negatives, a block of queries by this rank's targets at a time.

At most one block of similarities lives at once: the backward pass computes each block again (the idea of Inf-CL,
arXiv:2410.17243). So memory grows with the batch, not with its square.

Shapes: G queries of all ranks, N targets of this rank, R queries in a block, S sources.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from mmembed.counters import count, peak
from mmembed.losses.global_batch import Answers, GlobalBatch, Queries, Targets
from mmembed.losses.negatives import Negatives, above

EXCLUDED = -1e30
"""What stands for minus infinity: finite, so that rows without negatives give zeros where infinity gives NaN."""


@dataclass(frozen=True)
class Similarities:
    """What a block is computed from.

    Args:
        queries: embeddings of all ranks' queries ``[G, D]``.
        targets: embeddings of this rank's targets ``[N, D]``.
        temperatures: of the sources ``[S]``.
        limits: the cosine above which a query's target is masked ``[G]``; None masks none by it.
        batch: who is who.
    """

    queries: Tensor
    targets: Tensor
    temperatures: Tensor
    limits: Tensor | None
    batch: GlobalBatch


@dataclass(frozen=True)
class Partition:
    """Log-sum-exp over negatives among this rank's targets, :data:`EXCLUDED` where there are none.

    Args:
        of_queries: for each query over this rank's targets ``[G]``; other ranks have the rest.
        of_positives: for each target over all queries ``[N]``; None where that direction is off.
        masked: comparisons of queries that masks took out, a number.
    """

    of_queries: Tensor
    of_positives: Tensor | None
    masked: Tensor


def partition(given: Similarities, negatives: Negatives, *, both: bool, block_rows: int) -> Partition:
    """Compare all queries with this rank's targets in blocks of ``block_rows`` queries; ``both`` adds the mirror."""
    total = len(given.queries)
    blocks = [slice(start, min(start + block_rows, total)) for start in range(0, total, block_rows)]
    if len(blocks) == 1:
        return _block(given, negatives, both, blocks[0])
    parts = [_checkpointed(given, negatives, both, rows) for rows in blocks]
    mirrored = [part.of_positives for part in parts if part.of_positives is not None]
    return Partition(
        of_queries=torch.cat([part.of_queries for part in parts]),
        of_positives=torch.stack(mirrored).logsumexp(0) if mirrored else None,
        masked=torch.stack([part.masked for part in parts]).sum(),
    )


def logsumexp(scores: Tensor, dim: int) -> Tensor:
    """Like torch's, and :data:`EXCLUDED` over nothing."""
    return scores.logsumexp(dim) if scores.shape[dim] else scores.sum(dim) + EXCLUDED


def _checkpointed(given: Similarities, negatives: Negatives, both: bool, rows: slice) -> Partition:
    # no random numbers in a block, so none need be put back
    part: Partition = checkpoint(_block, given, negatives, both, rows, use_reentrant=False, preserve_rng_state=False)
    return part


def _block(given: Similarities, negatives: Negatives, both: bool, rows: slice) -> Partition:
    batch, queries = given.batch, given.batch.queries[rows]
    cosines = _inner_products(given.queries[rows], given.targets)
    count("score_bytes", cosines.nbytes)
    peak("score_bytes_at_once", cosines.nbytes)

    scores = cosines / given.temperatures[queries.sources][:, None]
    compared = negatives.compared_queries(queries, batch.targets)
    limits = None if given.limits is None else given.limits[rows, None]
    left_out, taken_out = _left_out(compared, cosines, limits, negatives.masked_queries, negatives, batch, rows)
    of_queries = logsumexp(scores.masked_fill(left_out, EXCLUDED), 1)

    of_positives = None
    if both:
        scores = cosines / given.temperatures[batch.targets.owners.sources]
        compared = negatives.compared_positives(queries, batch.targets)
        limits = None if given.limits is None else given.limits[batch.targets.owners.numbers]
        left_out, _ = _left_out(compared, cosines, limits, negatives.masked_positives, negatives, batch, rows)
        of_positives = logsumexp(scores.masked_fill(left_out, EXCLUDED), 0)
    return Partition(of_queries, of_positives, taken_out)


def _left_out(
    compared: Tensor,
    cosines: Tensor,
    limits: Tensor | None,
    masks: Callable[[Queries, Targets, Answers], Tensor],
    negatives: Negatives,
    batch: GlobalBatch,
    rows: slice,
) -> tuple[Tensor, Tensor]:
    """True ``[R, N]`` where a target is no negative, and how many comparisons masks took out.

    Masks are built for the rows that can have one, most often few; ``masked_rows`` counts these.
    """
    left_out = ~compared
    some = negatives.may_be_masked(batch, rows)
    count("masked_rows", len(some))
    if len(some):
        left_out[some] |= masks(batch.queries[rows][some], batch.targets, batch.answers)
    if limits is not None:
        left_out |= above(cosines, limits)
    elif not len(some):
        return left_out, some.sum()
    return left_out, (compared & left_out).sum()


def _inner_products(queries: Tensor, targets: Tensor) -> Tensor:
    return cast(Tensor, _InnerProducts.apply(queries, targets))


class _InnerProducts(torch.autograd.Function):
    """``queries @ targets.T`` whose gradient keeps its precision too: mixed precision runs the backward pass in it."""

    @staticmethod
    def forward(ctx: Any, queries: Tensor, targets: Tensor) -> Tensor:
        ctx.save_for_backward(queries, targets)
        return queries @ targets.T

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        queries, targets = ctx.saved_tensors
        with torch.autocast(gradient.device.type, enabled=False):
            of_queries = gradient @ targets if ctx.needs_input_grad[0] else None
            of_targets = gradient.T @ queries if ctx.needs_input_grad[1] else None
        return of_queries, of_targets
