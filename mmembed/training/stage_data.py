"""The data of a stage: what its steps are drawn from, and the rows held out of them."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import PIL.Image
from lightning import LightningDataModule
from torch.utils.data import DataLoader

from mmembed.data.batching import StepDataset, step_loader
from mmembed.data.mixture import LostTableError, Mixture, open_mixture
from mmembed.data.quarantine import BadRow
from mmembed.data.region_mixing import RegionMixer, example
from mmembed.data.sampler import Row
from mmembed.data.settings import Source
from mmembed.data.tables import open_table
from mmembed.errors import InputError
from mmembed.files import fingerprint
from mmembed.items import Image, Item
from mmembed.media.settings import MediaSettings
from mmembed.models.backbone import Preprocessor
from mmembed.models.settings import BackboneSettings
from mmembed.processes import Processes
from mmembed.training.batches import PairPreparer, TrainingBatch
from mmembed.training.settings import Stage

_TRIED = PIL.Image.new("RGB", (56, 56))
"""A picture that kinds of prompts are tried on."""


class StageData(LightningDataModule):  # type: ignore[misc]
    """The global batches of a stage from the step the trainer stands at, and its held-out slices."""

    def __init__(self, mixture: Mixture, preparer: PairPreparer, stage: Stage, processes: Processes) -> None:
        super().__init__()
        self.mixture = mixture
        self.preparer = preparer
        self.stage = stage
        self.processes = processes

    def train_dataloader(self) -> Iterable[TrainingBatch]:
        """The batches from here to the end; a resumed stage does not prepare those before."""
        accumulate = self.stage.optim.accumulate
        dataset = StepDataset(self.mixture, self.preparer, self.processes.rank, self.processes.world)
        first = self.trainer.global_step * accumulate
        last = self.stage.steps * accumulate
        on_gpu = self.trainer.strategy.root_device.type == "cuda"
        return step_loader(dataset, first, last, num_workers=self.stage.workers, pin=on_gpu)

    def val_dataloader(self) -> Any:
        """One batch for each source's held-out rows; none without validation."""
        validation = self.stage.validation
        if validation is None:
            return []
        # a list is a dataset to torch, though not to its types
        batches = [self._held_out(name, validation.rows) for name in self.mixture.tables]
        return DataLoader(batches, batch_size=None)  # type: ignore[arg-type]

    def _held_out(self, name: str, held_out: int) -> TrainingBatch:
        """This rank's share of the last rows of a source; those that cannot be used are left out, and told."""
        last = len(self.mixture.tables[name])
        prepared, bad = [], []
        for row in range(last - held_out, last)[self.processes.rank :: self.processes.world]:
            try:
                prepared.append(self.preparer.prepare(self.mixture.pair(Row(name, row))))
            except LostTableError:
                raise
            except InputError as error:
                bad.append(BadRow(name, row, str(error)))
        return replace(self.preparer.assemble(0, prepared, tuple(bad)), part=name)


def open_training(name: str, stage: Stage, *, seed: int, data_root: Path) -> Mixture:
    """What the stage called ``name`` draws its steps from, for the seed of a run; held-out rows are left out.

    Raises:
        InputError: a table that cannot be used, has no rows beyond those held out, or fewer rows than a block whose
            repeats no mask would take out.
    """
    part = _training_part(stage, data_root)
    mixture = open_mixture(part, stage.sampling, seed=stage_seed(name, seed), data_root=data_root)
    if not getattr(stage.objective, "mask_duplicates", True):
        for source, (rows, block) in mixture.repeats().items():
            raise InputError(
                f"mixture.{source}", expected=f"at least {block} rows, one block", got=rows,
                remedy="lower sampling.block_size, or turn on mask_duplicates: a row would be its own negative",
            )  # fmt: skip
    return mixture


def make_mixer(
    name: str, stage: Stage, *, seed: int, preprocessor: Preprocessor, backbone: BackboneSettings
) -> RegionMixer | None:
    """What draws the prompts of the stage called ``name``; None where regions stay as they are.

    Args:
        name: of the stage.
        stage: its settings.
        seed: of the run.
        preprocessor: is tried on each kind of prompt.
        backbone: settings of it, which say how pictures are opened.

    Raises:
        InputError: a kind with a weight that the model's region encoder cannot tell, or there is no encoder.
    """
    if stage.region_prompts is None:
        return None
    for kind, weight in stage.region_prompts.weights.items():
        tried = example(kind, stage.region_prompts, _TRIED.size) if weight else None
        if tried is not None:
            try:
                preprocessor(Item((Image(_TRIED, (tried,)),)), "query")
            except InputError as error:
                raise error.within(f"stages.{name}.region_prompts.weights.{kind}") from error
    media: MediaSettings = getattr(backbone, "media", MediaSettings())
    return RegionMixer(stage.region_prompts, seed=stage_seed(name, seed), media=media)


def stage_seed(name: str, seed: int) -> int:
    """Each stage of a run has its own seed."""
    return int(fingerprint(str(seed), name)[:8], 16)


def _training_part(stage: Stage, data_root: Path) -> dict[str, Source]:
    """The sources without their held-out rows."""
    if stage.validation is None:
        return dict(stage.mixture)
    parts = dict(stage.mixture)
    for name, source in _drawn_from(stage).items():
        rows = len(open_table(data_root / source.table))
        left = rows - stage.validation.rows
        if left < 1:
            raise InputError(
                f"mixture.{name}", expected=f"more than the {stage.validation.rows} rows held out", got=f"{rows} rows",
                remedy="lower validation.rows",
            )  # fmt: skip
        parts[name] = replace(source, limit=min(left, source.limit or left))
    return parts


def _drawn_from(stage: Stage) -> dict[str, Source]:
    """The sources that have a weight; the table of another need not be there."""
    return {name: source for name, source in stage.mixture.items() if source.weight}
