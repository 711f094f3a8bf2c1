"""Recipe: an embedder and named stages; the only file that knows losses, data and stages together.

Reading and checking a recipe imports no torch; running it does.
"""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mmembed import __version__
from mmembed.commands import is_one_of_several
from mmembed.errors import InputError
from mmembed.files import file_fingerprint, fingerprint
from mmembed.models.settings import EmbedderSettings, Speed
from mmembed.progress import track
from mmembed.settings import dump_yaml, load_yaml, read_settings
from mmembed.training.run_folder import RunFolder, held
from mmembed.training.settings import Checkpoints, Stage

if TYPE_CHECKING:
    from mmembed.models.backbone import Preprocessor
    from mmembed.models.embedder import Embedder
    from mmembed.processes import Processes


@dataclass(frozen=True)
class Recipe:
    """A paper, or a run of one's own: what is trained and how."""

    name: str
    """Names the run's folder."""
    embedder: EmbedderSettings
    """What is trained."""
    stages: dict[str, Stage]
    """What happens to it, in order."""
    seed: int = 0
    """Decides data order and dropout; the weights of a scratch model have their own."""
    threads: int | None = None
    """CPU threads; fixed for results that repeat bit for bit, None leaves torch its choice."""
    accelerator: str = "auto"
    """cpu, gpu or auto, as Lightning names them."""

    def __post_init__(self) -> None:
        if not self.stages:
            raise InputError("stages", expected="at least one", got="none", remedy="add stages: {main: {...}}")


def read_recipe(path: Path | str, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe and apply dotted overrides, e.g. ``["--stages.main.optim.lr", "2e-5"]``.

    Raises:
        InputError: file, key, expected, got and the nearest name.
    """
    return read_settings(Recipe, load_yaml(path) or {}, where=path, overrides=overrides)


def run_key(recipe: Recipe, data_root: Path) -> str:
    """Names what a run computes: the recipe, the bytes of its tables, and this package's version.

    Settings that change how a run goes and what it says, but not its weights, are left out.
    """
    sources = [source for stage in recipe.stages.values() for source in stage.mixture.values() if source.weight]
    tables = sorted({source.table for source in sources})
    tables += sorted({file for stage in recipe.stages.values() for file in stage.objective.files})
    missing = [table for table in tables if not (data_root / table).is_file()]
    if missing:
        raise InputError(
            data_root / missing[0],
            expected="a prepared table or file",
            got="no such file",
            remedy="prepare it, or give --data-root",
        )
    stages = {name: _decides(stage) for name, stage in recipe.stages.items()}
    embedder = replace(recipe.embedder, speed=Speed())
    decides = dump_yaml(replace(recipe, stages=stages, embedder=embedder, accelerator="auto"))
    return fingerprint(decides, __version__, *(file_fingerprint(data_root / table) for table in tables))


def _decides(stage: Stage) -> Stage:
    """The stage without what changes how it runs, what it says and when it gives up, but not its weights."""
    return replace(
        stage,
        sampling=replace(stage.sampling, max_bad=0.0),
        chunks=replace(stage.chunks, keep_mb=0, halve=True),
        checkpoints=Checkpoints(),
        workers=0, cache_mb=0, features=None, diverged=None, log_every=1, loggers=(), strategy="ddp",
    )  # fmt: skip


def run_recipe(
    recipe: Recipe, output: Path, *, data_root: Path, resume: str | Path = "auto", overwrite: bool = False
) -> tuple[Path, bool]:
    """Train a recipe, or go on with it; a run that is there already, for the same recipe and data, is not done again.

    Writes ``recipe.yaml`` (resolved), ``run.json``, ``train.log``, ``stages/NAME`` (logs, checkpoints) and ``final``
    (the embedder). Under torchrun or SLURM every process calls this, and the first one writes.

    Args:
        recipe: what to do.
        output: folder of the run.
        data_root: folder the tables are relative to.
        resume: ``auto`` goes on where a run of this recipe stopped, ``never`` begins it again, a path goes back to that
            checkpoint of the run.
        overwrite: replace another run that stands in ``output``.

    Returns:
        The folder of the trained embedder, and whether it was trained now.

    Raises:
        InputError: another run stands in ``output``, or data or a checkpoint that cannot be used.
        StoppedError: the run was told to stop; the same call goes on.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    folder = RunFolder(output, recipe.name, run_key(recipe, data_root), dump_yaml(recipe), list(recipe.stages))
    done = folder.is_done and resume == "auto"
    if done and not is_one_of_several():
        # without torch, which takes seconds
        return folder.final, False
    from mmembed.processes import joined

    with joined(recipe.accelerator) as processes, held(output) if processes.first else nullcontext(True) as ours:
        if processes.agree(done):
            return folder.final, False
        processes.let_first(lambda: folder.open(resume, overwrite=overwrite, ours=ours))
        started = time.monotonic()
        embedder = _train(recipe, folder, data_root, processes)
        processes.let_first(lambda: embedder.save(folder.final))
        processes.let_first(lambda: folder.close(round(time.monotonic() - started, 1)))
    return folder.final, True


def make_embedder(recipe: Recipe, data_root: Path) -> "Embedder":
    """The embedder that a recipe's first stage begins with."""
    import torch

    from mmembed.models.embedder import Embedder

    if recipe.threads is not None:
        torch.set_num_threads(recipe.threads)
    torch.manual_seed(recipe.seed)
    return Embedder(recipe.embedder, texts=_texts(recipe, data_root))


def make_preprocessor(recipe: Recipe, data_root: Path) -> "Preprocessor":
    """The preprocessor of :func:`make_embedder`; of a model with a language model no weight is loaded for it."""
    from mmembed.models.settings import LanguageSettings

    settings = recipe.embedder
    regions = None if settings.regions is None else settings.regions.preparer()
    without = {"weights": False} if isinstance(settings.backbone, LanguageSettings) else {}
    texts = _texts(recipe, data_root) if getattr(settings.backbone, "scratch", None) is not None else None
    backbone = settings.backbone.build(prompt=settings.prompt, texts=texts, regions=regions, **without)
    return backbone.preprocessor


def _train(recipe: Recipe, folder: RunFolder, data_root: Path, processes: "Processes") -> "Embedder":
    from mmembed.training.stages import StageRun, load_stage, run_stage
    from mmembed.training.train_log import TrainLog

    log = TrainLog(folder.log) if processes.first else TrainLog.none()
    embedder = make_embedder(recipe, data_root)
    runs: list[StageRun] = []
    for name, stage in recipe.stages.items():
        run = StageRun(
            name, stage, recipe.seed, folder.key, data_root, folder.stage(name), recipe.accelerator, processes
        )  # fmt: skip
        if not run.finished:
            run_stage(embedder, run, log)
            if run.sharded:
                # sharded weights are not put together in place: a new embedder takes up what the stages wrote
                embedder = make_embedder(recipe, data_root)
                for earlier in runs:
                    load_stage(embedder, earlier)
        load_stage(embedder, run)
        runs.append(run)
    return embedder


def _texts(recipe: Recipe, data_root: Path) -> Iterator[str]:
    """Every distinct text and instruction of the training tables, and how regions are told.

    A scratch tokenizer learns its words from these.
    """
    from mmembed.data.tables import open_table

    if recipe.embedder.regions is not None:
        yield from recipe.embedder.regions.preparer().vocabulary()
    seen: set[str] = set()
    drawn = [source for stage in recipe.stages.values() for source in stage.mixture.values() if source.weight]
    for source in {source.table: source for source in drawn}.values():
        table = open_table(data_root / source.table)
        for pair in track(table, f"read the words of {table.name}", total=len(table)):
            for item in (pair.query, *pair.positives, *(negative.item for negative in pair.negatives)):
                for text in (*(p for p in item.content if isinstance(p, str)), item.instruction or source.instruction):
                    if text and text not in seen:
                        seen.add(text)
                        # at the start of a prompt and behind a separator, byte pairs are not the same
                        yield from (text, f" {text}")
