"""The LightningModule: one optimiser step over an objective, by cached gradients, on one process or many, always."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar

import torch
from lightning import LightningModule
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor

from mmembed.losses.gather import gather, total
from mmembed.losses.objectives import Loss, Objective
from mmembed.losses.settings import ObjectiveSettings
from mmembed.models.embedder import Embedder
from mmembed.models.feature_store import FeatureStore
from mmembed.models.features import SharedFeatures
from mmembed.models.precision import whole_convolutions
from mmembed.models.sequence import Batch
from mmembed.timers import span
from mmembed.training.batches import TrainingBatch
from mmembed.training.ema import EmaWeights
from mmembed.training.grad_cache import Rep, cached_gradients, embed_all
from mmembed.training.kept_features import check_features, open_store
from mmembed.training.memory import halves_of, memory_explained, rows_stand_apart, tokens_of
from mmembed.training.optim import clip_gradients, freeze, make_optimizer, make_schedule, parameter_groups
from mmembed.training.optimizer_state import by_name, by_number, parameter_order
from mmembed.training.reduction import sum_gradients
from mmembed.training.refusals import refuse_no_finite_norm, refuse_no_negative, refuse_no_number
from mmembed.training.reports import StepReport
from mmembed.training.room import Room
from mmembed.training.settings import MB, Stage
from mmembed.training.sharding import even_chunks, is_sharded, shard, whole_tensor
from mmembed.training.tally import StepTally

Piece = TypeVar("Piece")

EMBEDDING = "embedding"
# ranks draw different dropout, and rank 0 what a single process draws
_RANK_STRIDE = 1 << 40


class EmbedderModule(LightningModule):  # type: ignore[misc]
    """Trains an Embedder for one stage.

    Optimisation is manual, because the batch passes the model in chunks. The random state of a batch is a function of
    (seed, number of the batch, rank), so a step is the same whatever came before it. The loss of a global batch is the
    sum of every rank's share, and so is its gradient: W ranks step as one would.

    Args:
        embedder: what trains.
        stage: how.
        seed: of the stage.
        facts: plain values that its checkpoints carry and a resumed stage must share.

    Attributes:
        report: what the last optimiser step did; None before the first.
        ema: the moving average of the trainable weights while training, if the stage asks for one.
        say: is told in words what a person should know of the steps, once: memory ran out.
    """

    # a checkpoint holds what trains, not the whole model
    strict_loading = False

    def __init__(self, embedder: Embedder, stage: Stage, *, seed: int, facts: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.embedder = embedder
        self.stage = stage
        self.seed = seed
        self.facts = dict(facts or {})
        objective: ObjectiveSettings = stage.objective
        self.objective: Objective = objective.build(stage.rules)
        self.report: StepReport | None = None
        self.ema: EmaWeights | None = None
        self._tally = StepTally()
        self._loaded_ema: dict[str, Tensor] | None = None
        self._store: FeatureStore | None = None
        self.say: Callable[[str], None] = lambda line: None
        self._room: Room[Any] = Room(halves_of, tokens_of, lambda line: self.say(line))
        freeze(embedder, stage.freeze)
        check_features(embedder, stage)

    def configure_model(self) -> None:
        """Shard the weights (FSDP2) where the trainer has several processes to spread them over."""
        if self.device_mesh is not None and not self.sharded:
            shard(self.embedder, self.device_mesh["data_parallel"])

    def configure_optimizers(self) -> dict[str, Any]:
        """The optimiser and its schedule, stepped by hand."""
        settings = self.stage.optim
        groups = parameter_groups(self.embedder.backbone.named_parameters(), settings)
        for beside in (self.embedder.pooler, self.embedder.regions):
            groups += parameter_groups(beside.named_parameters(), settings, parts=False)
        groups += _temperature_groups(self.objective, settings.lr)
        optimizer = make_optimizer(groups, settings)
        names = parameter_order(optimizer, self.named_parameters())
        optimizer.register_load_state_dict_pre_hook(lambda _, state: by_number(state, names))
        return {"optimizer": optimizer, "lr_scheduler": make_schedule(optimizer, settings, self.stage.steps)}

    def trained(self) -> dict[str, torch.nn.Parameter]:
        """The parameters that train, by name."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

    def on_train_start(self) -> None:
        """Begin, or go on with, the average of the weights."""
        decay = self.stage.optim.ema
        if decay is not None:
            self.ema = EmaWeights(self.trained(), decay)
            if self._loaded_ema is not None:
                self.ema.load_state_dict(self._loaded_ema)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what trains; the rest is the base, which the checkpoint names by its hash."""
        state, trained = checkpoint["state_dict"], self.trained()
        checkpoint["facts"] = self.facts
        if checkpoint.get("optimizer_states"):
            names = parameter_order(self.optimizers(use_pl_optimizer=False), self.named_parameters())
            # empty where another rank writes
            checkpoint["optimizer_states"] = [s and by_name(s, names) for s in checkpoint["optimizer_states"]]
        checkpoint["state_dict"] = {name: state[name] for name in trained if name in state}
        if self.ema is not None:
            checkpoint["ema"] = {name: whole_tensor(value) for name, value in self.ema.state_dict().items()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Remember the average until the weights are in their place."""
        self._loaded_ema = checkpoint.get("ema")

    def training_step(self, batch: TrainingBatch, batch_idx: int) -> None:
        """One global batch, and an optimiser step at the last of those that a step accumulates."""
        torch.manual_seed(self.seed * 1_000_003 + batch.number + self.global_rank * _RANK_STRIDE)
        optimizer, schedule = self.optimizers(), self.lr_schedulers()
        if batch.number % self.stage.optim.accumulate == 0:
            optimizer.zero_grad()
            self._tally = StepTally()
        # backwards, too, where a tower trains
        with whole_convolutions():
            loss, rep = self.gradients(batch)
        refuse_no_number(batch, loss, rep[EMBEDDING])
        refuse_no_negative(batch, loss)
        self._tally.add(batch, loss)
        if self.stage.ends_step(batch.number):
            with span("optimiser"):
                self._step(batch, optimizer, schedule)

    def _step(self, batch: TrainingBatch, optimizer: Any, schedule: Any) -> None:
        sum_gradients(self.parameters())
        norm = clip_gradients(self.trained().values(), self.stage.optim.clip_norm)
        refuse_no_finite_norm(batch, norm, self._tally)
        optimizer.step()
        done = {"grad_norm": float(norm), "lr": schedule.get_last_lr()[0]}
        schedule.step()
        self.objective.clamp()
        if self.ema is not None:
            self.ema.update()
        self.report = self._tally.report((batch.number + 1) // self.stage.optim.accumulate, done)
        self.log("loss", self.report.values["loss"], prog_bar=True, logger=False, batch_size=1)

    def gradients(self, batch: TrainingBatch) -> tuple[Loss, Rep]:
        """Put this rank's part of the gradient into the parameters; the loss, and the embeddings of distinct rows.

        Raises:
            InputError: the memory does not suffice, whatever the stage may do about it.
        """
        found: list[Loss] = []

        def loss_of(rep: Rep) -> Tensor:
            found.append(self._loss(batch, rep))
            return found[-1].share / self.stage.optim.accumulate

        rep = self._cached(batch, self.encoder(), self._chunks(batch), loss_of, list(self.trained().values()))
        # the last, where memory ran out and the step was taken again
        return found[-1], rep

    def _cached(
        self, batch: TrainingBatch, encode: Callable[[Piece], Rep], pieces: Sequence[Piece],
        loss_of: Callable[[Rep], Tensor], leaves: Sequence[Tensor],
    ) -> Rep:  # fmt: skip
        """Backpropagate the loss of all pieces of a batch into leaves by :func:`cached_gradients`; their embeddings."""
        # whether a graph is kept must not differ between ranks whose weights are sharded
        keep = 0 if self.sharded else self.stage.chunks.keep_mb * MB
        with self._one_reduction(), self._memory(batch) as room:
            _, rep = cached_gradients(
                encode, pieces, loss_of,
                backward=self._backward, keep_bytes=keep, empty=self._no_rows(), room=room, leaves=leaves,
            )  # fmt: skip
        return rep

    def _embedded(self, batch: TrainingBatch, encode: Callable[[Piece], Rep], pieces: Sequence[Piece]) -> Rep:
        """The embeddings of some pieces of a batch, without a gradient; none where this rank has no row."""
        with self._memory(batch) as room:
            return embed_all(encode, pieces, room=room, empty=self._no_rows())

    def _no_rows(self) -> Rep:
        return {EMBEDDING: torch.zeros(0, self.embedder.width, device=self.device)}

    @contextmanager
    def _memory(self, batch: TrainingBatch) -> Iterator[Room[Any]]:
        """What makes room inside the block; memory that runs out all the same is an error in words."""
        # other ranks would wait for layers that sharded weights run once more here
        may_halve = not self.sharded and rows_stand_apart(self.embedder.settings.backbone)
        room = self._room if may_halve and self.stage.chunks.halve else Room[Any](cost=self._room.cost)
        with memory_explained(batch, room):
            yield room

    def encoder(self) -> Callable[[Batch], Rep]:
        """Chunk -> Rep for one batch; a frozen tower's features are shared by all its chunks and passes."""
        features = self.shared_features()

        def encode(chunk: Batch) -> Rep:
            return {EMBEDDING: self.embedder(chunk, None if features is None else features.of(chunk))}

        return encode

    def shared_features(self) -> SharedFeatures | None:
        """A frozen tower's features for one batch, kept on disk beyond it if the stage says so; None where it trains.

        Raises:
            InputError: the stage keeps features of a tower that has dropout.
        """
        if not self.embedder.tower_is_frozen:
            return None
        if self._store is None and self.stage.features is not None:
            # not before the first step: a checkpoint is loaded by then, and autocast is on
            self._store = open_store(self.embedder, self.stage.features)
        return SharedFeatures(self.embedder.vision, store=self._store)

    def validation_step(self, batch: TrainingBatch, batch_idx: int) -> None:
        """Loss and hit@1 of one source's held-out slice, every target of the slice a candidate for every query.

        The weights are those that the stage hands on: their average where that is what it finishes with.
        """
        with self.ema.swapped() if self.ema is not None and self.stage.finish == "ema" else nullcontext():
            rep = self._embed(batch)
        loss, found = self._loss(batch, rep), self._hits(batch, rep)
        counts = torch.stack([found.sum(), torch.tensor(len(found), device=self.device)])
        hits, queries = total(counts.double()).tolist()
        values = {"val/hit@1": hits / queries, f"val/hit@1/{batch.part or batch.sources[0]}": hits / queries}
        self.log_dict(values | {"val/loss": loss.value.float()}, batch_size=int(queries))

    @property
    def sharded(self) -> bool:
        """Whether the weights are spread over the processes."""
        return is_sharded(self.embedder)

    def _chunks(self, batch: TrainingBatch) -> list[Batch]:
        return even_chunks(batch) if self.sharded else batch.chunks

    def _embed(self, batch: TrainingBatch) -> Rep:
        """The embeddings of the chunks' rows one after another ``[R, D]``; R is 0 where this rank has no row."""
        return self._embedded(batch, self.encoder(), self._chunks(batch))

    def _loss(self, batch: TrainingBatch, rep: Rep) -> Loss:
        embeddings = rep[EMBEDDING]
        with span("loss"):
            queries, targets = embeddings[batch.query_rows], embeddings[batch.target_rows]
            loss: Loss = self.objective(queries, targets, batch.candidates)
        return loss

    def _hits(self, batch: TrainingBatch, rep: Rep) -> Tensor:
        """Whether each held-out query finds a target equal to its own before all others ``[B]``."""
        return self._found(batch, rep[EMBEDDING][batch.query_rows], rep[EMBEDDING][batch.target_rows])

    def _found(self, batch: TrainingBatch, queries: Tensor, targets: Tensor) -> Tensor:
        """The same of vectors ``[B, D]`` and ``[N, D]`` of this rank, compared with the targets of all."""
        candidates = batch.candidates
        best = (queries @ gather(targets).T).argmax(1)
        return gather(candidates.target_keys)[best] == candidates.target_keys[candidates.labels]

    def _one_reduction(self) -> AbstractContextManager[None]:
        """Keep DistributedDataParallel from reducing in each backward pass; it is done once, by hand."""
        strategy = getattr(self._trainer, "strategy", None)
        return strategy.block_backward_sync() if isinstance(strategy, DDPStrategy) else nullcontext()

    def _backward(self, loss: Tensor) -> None:
        with span("backward"):
            if self._trainer is None:
                torch.autograd.backward(loss)
            else:
                self.manual_backward(loss)


def _temperature_groups(objective: Objective, rate: float) -> list[dict[str, Any]]:
    """A learned temperature trains at its own rate and never decays."""
    parameters = [p for p in objective.parameters() if p.requires_grad]
    rate = objective.learning_rate or rate
    return [{"params": parameters, "lr": rate, "weight_decay": 0.0, "name": "temperature"}] if parameters else []
