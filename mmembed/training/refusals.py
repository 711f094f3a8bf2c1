"""What a step must not go on with: a loss or gradient that is no number, queries that have nothing to be told from."""

import torch
from torch import Tensor

from mmembed.errors import DivergenceError, InputError
from mmembed.losses.objectives import Loss
from mmembed.processes import everyone
from mmembed.training.batches import TrainingBatch
from mmembed.training.tally import StepTally


def refuse_no_number(batch: TrainingBatch, loss: Loss, embeddings: Tensor) -> None:
    """Every process must call it.

    Args:
        batch: of the loss.
        loss: of all processes.
        embeddings: of this process' distinct rows ``[R, D]``.

    Raises:
        DivergenceError: the loss is not finite; the pairs whose embeddings are not are named.
    """
    if bool(torch.isfinite(loss.value)):
        return
    bad = ~torch.isfinite(embeddings).all(-1)
    of_queries, of_targets = bad[batch.query_rows].nonzero()[:, 0], bad[batch.target_rows].nonzero()[:, 0]
    rows = {*of_queries.tolist(), *batch.candidates.owner[of_targets].tolist()}
    named = "rows whose embedding is not finite", [batch.name(row) for row in sorted(rows)]
    raise _diverged(batch, f"loss {loss.value.item()}", *named)


def refuse_no_finite_norm(batch: TrainingBatch, norm: Tensor, tally: StepTally) -> None:
    """Every process must call it.

    Args:
        batch: the last of a step.
        norm: of the step's gradient.
        tally: of the step.

    Raises:
        DivergenceError: the norm is not finite; the pairs of the largest loss are named.
    """
    if not bool(torch.isfinite(norm)):
        got = f"loss {tally.loss} and gradient norm {norm.item()}"
        raise _diverged(batch, got, "rows of the largest loss", tally.hardest)


def refuse_no_negative(batch: TrainingBatch, loss: Loss) -> None:
    """Refuse a contrastive loss that compares nothing.

    Raises:
        InputError: no query of the batch has a negative.
    """
    if loss.logs.get("no_negative") == 1:
        raise InputError(
            f"batch {batch.number}", expected="a negative for at least one query", got="none: masks or scopes take "
            "every target out", remedy="use larger batches, other blocks, hard negatives or fewer masks",
        )  # fmt: skip


def _diverged(batch: TrainingBatch, got: str, what: str, mine: list[str]) -> DivergenceError:
    rows = [name for names in everyone(mine) for name in names]
    return DivergenceError(
        f"batch {batch.number}: expected a finite loss and gradient, got {got}; {what}: "
        f"{', '.join(rows[:8]) or 'none'}; lower the learning rate or look at these rows"
    )
