"""One stage of training: data, module and Lightning's Trainer put together."""

import logging
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from lightning import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from torch.utils.data import DataLoader

from mmembed.data.batching import StepDataset, step_loader
from mmembed.data.mixture import Mixture, open_mixture
from mmembed.data.settings import Source
from mmembed.data.tables import open_table
from mmembed.errors import InputError
from mmembed.files import fingerprint
from mmembed.items import Item, Pair
from mmembed.models.embedder import Embedder
from mmembed.training.batches import PairPreparer, TrainingBatch
from mmembed.training.module import EmbedderModule
from mmembed.training.progress import TrainingProgress
from mmembed.training.settings import MB, Stage, Validation

BEST = "best"


def run_stage(
    embedder: Embedder,
    name: str,
    stage: Stage,
    *,
    seed: int,
    data_root: Path,
    directory: Path,
    accelerator: str = "auto",
) -> None:
    """Train ``embedder`` in place for one stage.

    Args:
        embedder: what is trained; afterwards it has the last or the best weights, as the stage says.
        name: of the stage.
        stage: its settings.
        seed: of the run; each stage draws its own data order from it.
        data_root: folder the tables are relative to.
        directory: where logs and checkpoints go; what an earlier run left there is removed.
        accelerator: as Lightning names it.

    Raises:
        InputError: a table or row that cannot be used.
        DivergenceError: the loss is no longer a number; the rows are named.
    """
    shutil.rmtree(directory, ignore_errors=True)
    embedder.cache_media(stage.cache_mb * MB)
    preparer = PairPreparer(embedder.backbone.preprocessor, stage.chunks)
    mixture = open_training(name, stage, seed=seed, data_root=data_root)
    loader = step_loader(StepDataset(mixture, preparer), 0, stage.steps, num_workers=stage.workers)
    checks = [] if stage.validation is None else _validation_batches(stage, stage.validation, preparer, data_root)
    module = EmbedderModule(embedder, stage, seed=stage_seed(name, seed))
    with _without_lightning_advice():
        trainer = _make_trainer(name, stage, directory, accelerator)
        # a list is a dataset to torch, though not to its types
        trainer.fit(module, loader, DataLoader(checks, batch_size=None) if checks else None)  # type: ignore[arg-type]
    if stage.finish == BEST:
        _load_best(module, directory)


def open_training(name: str, stage: Stage, *, seed: int, data_root: Path) -> Mixture:
    """What the stage called ``name`` draws its steps from, for the seed of a run; held-out rows are left out.

    Raises:
        InputError: a table that cannot be used, or has no rows beyond those held out.
    """
    part = _training_part(stage, data_root)
    return open_mixture(part, stage.sampling, seed=stage_seed(name, seed), data_root=data_root)


def stage_seed(name: str, seed: int) -> int:
    """Each stage of a run has its own seed."""
    return int(fingerprint(str(seed), name)[:8], 16)


def _training_part(stage: Stage, data_root: Path) -> dict[str, Source]:
    """The sources without their held-out rows."""
    if stage.validation is None:
        return dict(stage.mixture)
    parts = {}
    for name, source in stage.mixture.items():
        rows = len(open_table(data_root / source.table))
        left = rows - stage.validation.rows
        if left < 1:
            raise InputError(
                f"mixture.{name}", expected=f"more than the {stage.validation.rows} rows held out", got=f"{rows} rows",
                remedy="lower validation.rows",
            )  # fmt: skip
        parts[name] = replace(source, limit=min(left, source.limit or left))
    return parts


def _validation_batches(
    stage: Stage, validation: Validation, preparer: PairPreparer, data_root: Path
) -> list[TrainingBatch]:
    """The last rows of each source, a batch for each."""
    batches = []
    for name, source in stage.mixture.items():
        table = open_table(data_root / source.table)
        rows = range(len(table) - validation.rows, len(table))
        batches.append(preparer(0, [_named(table[row], name, source) for row in rows]))
    return batches


def _named(pair: Pair, name: str, source: Source) -> Pair:
    return replace(pair, source=name, query=Item.of(pair.query, source.instruction))


def _make_trainer(name: str, stage: Stage, directory: Path, accelerator: str) -> Trainer:
    checkpoints = directory / "checkpoints"
    callbacks: list[Callback] = [
        TrainingProgress(name, stage.steps),
        ModelCheckpoint(
            checkpoints, filename="step-{step}", every_n_train_steps=stage.checkpoint_every, save_last=True
        ),
    ]
    if stage.validation is not None:
        callbacks.append(ModelCheckpoint(checkpoints, filename=BEST, monitor="val/hit@1", mode="max"))
    return Trainer(
        max_steps=stage.steps,
        accelerator=accelerator,
        devices=1,
        precision=stage.precision,
        logger=TensorBoardLogger(directory, name="", version="logs"),
        callbacks=callbacks,
        val_check_interval=None if stage.validation is None else min(stage.validation.every, stage.steps),
        check_val_every_n_epoch=1 if stage.validation is None else None,
        num_sanity_val_steps=0,
        log_every_n_steps=stage.log_every,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )


def _load_best(module: EmbedderModule, directory: Path) -> None:
    state = torch.load(directory / "checkpoints" / f"{BEST}.ckpt", map_location="cpu", weights_only=True)
    module.load_state_dict(state["state_dict"])


@contextmanager
def _without_lightning_advice() -> Iterator[None]:
    """Silence what Lightning says about workers, hardware and validation, which the recipe has decided.

    Also that a checkpoint holds the state after a step: it is the one to go on from.
    """
    talkers = [logging.getLogger(name) for name in ("lightning.pytorch.utilities.rank_zero", "lightning.pytorch")]
    levels = [talker.level for talker in talkers]
    for talker in talkers:
        talker.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*GPU available but not used.*")
        warnings.filterwarnings("ignore", message=".*validation_step.* but have no .val_dataloader.*")
        warnings.filterwarnings("ignore", message=".*no pre-optimization state was saved.*")
        warnings.filterwarnings("ignore", message=".*LeafSpec.*")
        yield
    for talker, level in zip(talkers, levels, strict=True):
        talker.setLevel(level)
