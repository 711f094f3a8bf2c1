"""The LightningModule: one optimiser step over an objective, by cached gradients, always."""

from collections.abc import Callable
from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor

from mmembed.errors import DivergenceError, InputError, nearest
from mmembed.losses.objectives import ContrastiveObjective
from mmembed.losses.settings import ObjectiveSettings
from mmembed.models.embedder import Embedder
from mmembed.models.features import SharedFeatures
from mmembed.models.sequence import Batch
from mmembed.training.batches import TrainingBatch
from mmembed.training.grad_cache import Rep, cached_gradients
from mmembed.training.optim import make_optimizer, make_schedule
from mmembed.training.settings import MB, Stage

EMBEDDING = "embedding"


class EmbedderModule(LightningModule):  # type: ignore[misc]
    """Trains an Embedder for one stage.

    Optimisation is manual, because the batch passes the model in chunks. The random state of a step is a function of
    (seed, step), so a step is the same whatever came before it.
    """

    def __init__(self, embedder: Embedder, stage: Stage, *, seed: int) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.embedder = embedder
        self.stage = stage
        self.seed = seed
        objective: ObjectiveSettings = stage.objective
        self.objective: ContrastiveObjective = objective.build()
        freeze(embedder, stage.freeze)

    def configure_optimizers(self) -> dict[str, Any]:
        """AdamW and its schedule, stepped by hand."""
        optimizer = make_optimizer(self.embedder.parameters(), self.stage.optim)
        return {"optimizer": optimizer, "lr_scheduler": make_schedule(optimizer, self.stage.optim, self.stage.steps)}

    def training_step(self, batch: TrainingBatch, batch_idx: int) -> None:
        """One optimiser step."""
        torch.manual_seed(self.seed * 1_000_003 + batch.step)
        optimizer, schedule = self.optimizers(), self.lr_schedulers()
        optimizer.zero_grad()
        loss, rep, logs = self.gradients(batch)
        norm = self._clip()
        self._check_finite(loss, norm, rep, batch)
        optimizer.step()
        schedule.step()
        tokens = sum(int(chunk.lengths.sum()) for chunk in batch.chunks)
        values = {"loss": loss, "grad_norm": norm, "lr": schedule.get_last_lr()[0], "tokens": float(tokens)}
        self.log_dict({f"train/{name}": value for name, value in (values | logs).items()}, batch_size=1)
        self.log("loss", loss, prog_bar=True, logger=False, batch_size=1)

    def gradients(self, batch: TrainingBatch) -> tuple[Tensor, Rep, dict[str, float]]:
        """Put the batch's gradient into the parameters; loss and embeddings of distinct rows, detached, and logs."""
        logs: dict[str, float] = {}

        def loss_of(rep: Rep) -> Tensor:
            embeddings = rep[EMBEDDING]
            queries, targets = embeddings[batch.query_rows], embeddings[batch.target_rows]
            loss, measured = self.objective(queries, targets, batch.candidates)
            logs.update(measured)
            return loss

        loss, rep = cached_gradients(
            self.encoder(), batch.chunks, loss_of, backward=self._backward, keep_bytes=self.stage.chunks.keep_mb * MB
        )
        return loss, rep, logs

    def encoder(self) -> Callable[[Batch], Rep]:
        """Chunk -> Rep for one step; a frozen tower's features are shared by all its chunks and passes."""
        backbone = self.embedder.backbone
        features = SharedFeatures(backbone) if backbone.tower_is_frozen else None

        def encode(chunk: Batch) -> Rep:
            return {EMBEDDING: self.embedder(chunk, None if features is None else features.of(chunk))}

        return encode

    def validation_step(self, batch: TrainingBatch, batch_idx: int) -> None:
        """Loss and hit@1 of one source's held-out slice, every pair's target a candidate for every query."""
        encode = self.encoder()
        embeddings = torch.cat([encode(chunk)[EMBEDDING] for chunk in batch.chunks])
        queries, targets = embeddings[batch.query_rows], embeddings[batch.target_rows]
        loss, _ = self.objective(queries, targets, batch.candidates)
        keys, own = batch.candidates.target_keys, batch.candidates.labels
        best = (queries @ targets.T).argmax(1)
        hit = (keys[best] == keys[own]).float().mean()
        rows = len(queries)
        self.log(f"val/hit@1/{batch.sources[0]}", hit, batch_size=rows)
        self.log("val/hit@1", hit, batch_size=rows, prog_bar=True)
        self.log("val/loss", loss, batch_size=rows)

    def _backward(self, loss: Tensor) -> None:
        if self._trainer is None:
            torch.autograd.backward(loss)
        else:
            self.manual_backward(loss)

    def _clip(self) -> Tensor:
        limit = self.stage.optim.clip_norm
        trainable = [p for p in self.embedder.parameters() if p.grad is not None]
        return torch.nn.utils.clip_grad_norm_(trainable, float("inf") if limit is None else limit)

    def _check_finite(self, loss: Tensor, norm: Tensor, rep: Rep, batch: TrainingBatch) -> None:
        if bool(torch.isfinite(loss)) and bool(torch.isfinite(norm)):
            return
        bad = ~torch.isfinite(rep[EMBEDDING]).all(-1)
        rows = (bad[batch.query_rows] | bad[batch.target_rows[batch.candidates.labels]]).nonzero()[:, 0].tolist()
        named = [f"{batch.sources[i]}:{batch.query_ids[i]}" for i in rows[:8]]
        raise DivergenceError(
            f"step {batch.step}: expected a finite loss and gradient, got loss {loss.item()} and gradient norm "
            f"{norm.item()}; rows whose embedding is not finite: {', '.join(named) or 'none'}; lower the "
            "learning rate or look at these rows"
        )


def freeze(embedder: Embedder, parts: tuple[str, ...]) -> None:
    """Let train what the embedder was built to train, except the named parts of its backbone.

    Raises:
        InputError: a name that no parameter begins with.
    """
    for name, parameter in embedder.named_parameters():
        parameter.requires_grad_(name in embedder.trainable)
    backbone = dict(embedder.backbone.named_parameters())
    for part in parts:
        found = [parameter for name, parameter in backbone.items() if name.startswith(part)]
        if not found:
            heads = sorted({".".join(name.split(".")[:2]) for name in backbone})
            raise InputError(
                "freeze", expected="the beginning of a parameter's name", got=f"'{part}'", remedy=nearest(part, heads)
            )
        for parameter in found:
            parameter.requires_grad_(False)
