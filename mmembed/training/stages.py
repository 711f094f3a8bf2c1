"""One stage of training: data, module and Lightning's Trainer put together, begun or gone on with."""

import logging
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning import Callback, Trainer

from mmembed.data.quarantine import Quarantine
from mmembed.files import fingerprint
from mmembed.models.embedder import Embedder
from mmembed.processes import ALONE, Processes, launcher
from mmembed.training.batches import PairPreparer
from mmembed.training.callbacks import BEST, Guards, PatientFiles, StageCheckpoints
from mmembed.training.checkpoint import (
    CheckpointFiles,
    base_fingerprint,
    check_facts,
    checkpoint_path,
    clean_leftovers,
    latest,
    verify,
)
from mmembed.training.divergence import Divergence
from mmembed.training.loggers import make_loggers
from mmembed.training.optim import freeze
from mmembed.training.progress import TrainingProgress
from mmembed.training.pseudo_words import make_module
from mmembed.training.settings import MB, Stage
from mmembed.training.stage_data import StageData, make_mixer, open_training, stage_seed
from mmembed.training.strategies import trainer_choices
from mmembed.training.train_log import TrainLog
from mmembed.training.watch import Watch
from mmembed.workers import lost_workers_told


@dataclass(frozen=True)
class StageRun:
    """A stage of a run, and where and on what it runs.

    Args:
        name: of the stage.
        stage: its settings.
        seed: of the run; each stage draws its own data order from it.
        key: names the recipe and data of the run; a checkpoint of another is refused.
        data_root: folder the tables are relative to.
        directory: where logs and checkpoints go.
        accelerator: as Lightning names it.
        processes: those of the run.
    """

    name: str
    stage: Stage
    seed: int
    key: str
    data_root: Path
    directory: Path
    accelerator: str = "auto"
    processes: Processes = ALONE

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.directory / "checkpoints"

    @property
    def finished(self) -> bool:
        """Whether the last step was done and written, as rank 0 sees it."""
        return bool(self.processes.agree(checkpoint_path(self.checkpoints, self.stage.steps).is_dir()))

    @property
    def sharded(self) -> bool:
        """Whether the weights are spread over the processes while the stage trains."""
        return self.stage.strategy == "fsdp2" and self.processes.world > 1


def run_stage(embedder: Embedder, run: StageRun, log: TrainLog) -> None:
    """Train one stage to its end, from its last checkpoint if there is one; :func:`load_stage` gives its result.

    Args:
        embedder: what the stages before handed on; trained in place, or sharded for good.
        run: the stage.
        log: where to say what happens.

    Raises:
        InputError: a table, row or checkpoint that cannot be used; where a checkpoint is not whole, the last good one
            is named.
        DivergenceError: the loss is no longer a number, or far worse than at the start; rows are named.
        StoppedError: the run was told to stop; its state is written.
        LostWorkerError: a worker process was killed; the same command goes on from the last checkpoint.
    """
    stage, processes = run.stage, run.processes
    freeze(embedder, stage.freeze)
    # loaded weights come in evaluation mode, without dropout and without recomputed activations
    embedder.train()
    embedder.cache_media(stage.cache_mb * MB)
    facts = _facts(embedder, run)
    resumed = _checkpoint_to_resume(run, facts)
    mixture = open_training(run.name, stage, seed=run.seed, data_root=run.data_root)
    preprocessor = embedder.backbone.preprocessor
    mixer = make_mixer(
        run.name, stage, seed=run.seed, preprocessor=preprocessor, backbone=embedder.settings.backbone
    )  # fmt: skip
    preparer = PairPreparer(
        preprocessor, stage.chunks, list(stage.mixture),
        filler=run.sharded, mixer=mixer, filled=stage.objective.filled,
        placeholder=getattr(embedder.pooler, "placeholder", None),
    )  # fmt: skip
    data = StageData(mixture, preparer, stage, processes)
    module = make_module(
        embedder, stage, seed=stage_seed(run.name, run.seed), facts=facts, data_root=run.data_root
    )  # fmt: skip
    module.say = log.line
    quarantine = Quarantine(mixture.sampler.sizes, stage.sampling.max_bad)
    watch = Watch(stage.log_every, make_loggers(stage.loggers if processes.first else (), run.directory, run.name), log)
    callbacks = [
        # first, so that a step which is refused is logged
        watch,
        Guards(quarantine, Divergence(stage.diverged), log),
        TrainingProgress(run.name, stage.steps),
        # last, so that what the others saw of a step is in its checkpoint
        StageCheckpoints(run.checkpoints, stage, log),
    ]
    log.begin(run.name, stage, embedder, mixture.sampler, processes, resumed)
    with _without_lightning_advice(), lost_workers_told():
        trainer = _make_trainer(run, callbacks)
        trainer.fit(module, datamodule=data, ckpt_path=resumed, weights_only=True)
    planned = mixture.sampler.composition(0, stage.steps * stage.optim.accumulate)
    log.end(run.name, watch.composition, planned, quarantine)


def load_stage(embedder: Embedder, run: StageRun) -> None:
    """Put the weights that a finished stage hands on into the embedder that it began with.

    Raises:
        InputError: the checkpoint is not whole, or was made from other weights.
    """
    stage = run.stage
    path = run.checkpoints / BEST if stage.finish == BEST else checkpoint_path(run.checkpoints, stage.steps)
    freeze(embedder, stage.freeze)
    check_facts(verify(path), _facts(embedder, run), path)
    checkpoint = CheckpointFiles().load_checkpoint(path)
    weights = checkpoint["ema" if stage.finish == "ema" else "state_dict"]
    prefix = "embedder."
    embedder.load_state_dict(
        {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}, strict=False
    )


def _make_trainer(run: StageRun, callbacks: list[Callback]) -> Trainer:
    stage = run.stage
    return Trainer(
        max_steps=stage.steps,
        accelerator=run.accelerator,
        precision=stage.precision,
        # the launcher is named, for Lightning's own guess would requeue SLURM jobs its own way
        plugins=[PatientFiles(), *([] if (started := launcher()) is None else [started])],
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        **trainer_choices(stage.strategy, run.processes),
        **_validation_choices(stage),
    )


def _facts(embedder: Embedder, run: StageRun) -> dict[str, Any]:
    """What must be the same when a checkpoint is taken up: recipe and data, stage, what trains, and the rest."""
    trains = {name for name, parameter in embedder.named_parameters() if parameter.requires_grad}
    state = embedder.state_dict()
    base = base_fingerprint((name, value) for name, value in state.items() if name not in trains)
    return {"recipe": run.key, "stage": run.name, "trains": fingerprint(*sorted(trains)), "base": base}


def _checkpoint_to_resume(run: StageRun, facts: dict[str, Any]) -> Path | None:
    """The newest checkpoint, whole and of this run; a stage without one begins in an empty folder."""

    def make_ready() -> None:
        clean_leftovers(run.checkpoints)
        newest = latest(run.checkpoints)
        if newest is None:
            shutil.rmtree(run.directory, ignore_errors=True)
        else:
            check_facts(verify(newest), facts, newest)

    run.processes.let_first(make_ready)
    # ranks need not see the disk at the same moment
    found = run.processes.agree(latest(run.checkpoints))
    return None if found is None else Path(found)


def _validation_choices(stage: Stage) -> dict[str, Any]:
    if stage.validation is None:
        return {"limit_val_batches": 0}
    every = min(stage.validation.every, stage.steps) * stage.optim.accumulate
    return {"val_check_interval": every, "check_val_every_n_epoch": None}


@contextmanager
def _without_lightning_advice() -> Iterator[None]:
    """Silence what Lightning says about workers, hardware, validation and resuming, which the recipe has decided."""
    talkers = [logging.getLogger(name) for name in ("lightning.pytorch.utilities.rank_zero", "lightning.pytorch")]
    levels = [talker.level for talker in talkers]
    for talker in talkers:
        talker.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        for message in _ADVICE:
            warnings.filterwarnings("ignore", message=message)
        yield
    for talker, level in zip(talkers, levels, strict=True):
        talker.setLevel(level)


_ADVICE = (
    ".*does not have many workers.*",
    # what stays in eval mode does so of itself: batch normalisation's statistics, a frozen SAM 2
    r".*module\(s\) in eval mode at the start of training.*",
    ".*GPU available but not used.*",
    ".*validation_step.* but have no .val_dataloader.*",
    ".*no pre-optimization state was saved.*",
    ".*dataloader is not resumable.*",
    ".*LeafSpec.*",
)
