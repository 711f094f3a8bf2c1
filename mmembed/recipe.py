"""Recipe: an embedder and named stages; the only file that knows losses, data and stages together.

Reading and checking a recipe imports no torch; running it does.
"""

import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mmembed import __version__
from mmembed.errors import InputError
from mmembed.files import file_fingerprint, fingerprint, write_json, write_text
from mmembed.models.settings import EmbedderSettings
from mmembed.settings import dump_yaml, load_yaml, read_settings
from mmembed.training.settings import Stage

if TYPE_CHECKING:
    from mmembed.models.embedder import Embedder

RECIPE_FILE, RUN_FILE, FINAL = "recipe.yaml", "run.json", "final"


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
    """Names what a run computes: the resolved recipe, the bytes of its tables, and this package's version."""
    tables = sorted({source.table for stage in recipe.stages.values() for source in stage.mixture.values()})
    missing = [table for table in tables if not (data_root / table).is_file()]
    if missing:
        raise InputError(
            data_root / missing[0],
            expected="a prepared table",
            got="no such file",
            remedy="prepare it, or give --data-root",
        )
    return fingerprint(dump_yaml(recipe), __version__, *(file_fingerprint(data_root / table) for table in tables))


def run_recipe(recipe: Recipe, output: Path, *, data_root: Path, overwrite: bool = False) -> tuple[Path, bool]:
    """Train a recipe; a run that is there already, for the same recipe, data and version, is not done again.

    Writes ``recipe.yaml`` (resolved), ``run.json``, ``stages/NAME`` (logs, checkpoints) and ``final`` (the embedder).

    Args:
        recipe: what to do.
        output: folder of the run.
        data_root: folder the tables are relative to.
        overwrite: replace another run that stands in ``output``.

    Returns:
        The folder of the trained embedder, and whether it was trained now.

    Raises:
        InputError: another run stands in ``output``, or data that cannot be used.
    """
    key = run_key(recipe, data_root)
    final = output / FINAL
    found = json.loads((output / RUN_FILE).read_text()) if (output / RUN_FILE).is_file() else None
    if found is not None and found["key"] == key and final.is_dir():
        return final, False
    if found is not None and found["key"] != key and not overwrite:
        raise InputError(
            output, expected="a new folder, or a run of this very recipe and data", got=f"a run of '{found['name']}'",
            remedy="choose another --output, or add --overwrite",
        )  # fmt: skip
    output.mkdir(parents=True, exist_ok=True)
    # from here on the folder is no longer the run it was, whatever happens
    (output / RUN_FILE).unlink(missing_ok=True)
    write_text(output / RECIPE_FILE, dump_yaml(recipe))
    started = time.monotonic()
    embedder = _train(recipe, output, data_root)
    embedder.save(final)
    seconds = round(time.monotonic() - started, 1)
    write_json(output / RUN_FILE, {"key": key, "name": recipe.name, "mmembed": __version__, "train_seconds": seconds})
    return final, True


def make_embedder(recipe: Recipe, data_root: Path) -> "Embedder":
    """The embedder that a recipe's first stage begins with."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import torch

    from mmembed.models.embedder import Embedder

    if recipe.threads is not None:
        torch.set_num_threads(recipe.threads)
    torch.manual_seed(recipe.seed)
    return Embedder(recipe.embedder, texts=_texts(recipe, data_root))


def _train(recipe: Recipe, output: Path, data_root: Path) -> "Embedder":
    from mmembed.training.stages import run_stage

    embedder = make_embedder(recipe, data_root)
    for name, stage in recipe.stages.items():
        run_stage(
            embedder, name, stage,
            seed=recipe.seed, data_root=data_root, directory=output / "stages" / name, accelerator=recipe.accelerator,
        )  # fmt: skip
    return embedder


def _texts(recipe: Recipe, data_root: Path) -> Iterator[str]:
    """Every distinct text and instruction of the training tables: what a scratch tokenizer learns its words from."""
    from mmembed.data.tables import open_table

    seen: set[str] = set()
    for source in {s.table: s for stage in recipe.stages.values() for s in stage.mixture.values()}.values():
        for pair in open_table(data_root / source.table):
            for item in (pair.query, *pair.positives):
                for text in (*(p for p in item.content if isinstance(p, str)), item.instruction or source.instruction):
                    if text and text not in seen:
                        seen.add(text)
                        yield text
