"""A recipe made small: a random checkpoint of the same architecture, and drawn miniatures of its data."""

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from data_prep.commands import DEMO, OWN_DATA, PSEUDO_WORDS
from data_prep.engine.lock import locked
from mmembed import __version__
from mmembed.data.settings import Sampling
from mmembed.files import fingerprint, write_json
from mmembed.models.settings import (
    BackboneSettings,
    RegionEncoderSettings,
    Sam2Regions,
    Sam2Scratch,
    Scratch,
    TextualInversion,
)
from mmembed.recipe import Recipe, make_embedder
from mmembed.settings import dump_yaml, parse_yaml, read_settings
from mmembed.training.settings import Stage
from scripts.tables import sets_of

STEPS, BATCH = 2, 32
SIDE = 56
ARCHITECTURES = {
    "Qwen2.5-VL": "qwen2_5_vl",
    "Qwen3-VL": "qwen3_vl",
    "onevision": "llava_onevision",
    "llava-1.5": "llava",
    "llava-phi": "llava",
}
"""Of checkpoints that are not of their family's first architecture, by what their names hold."""


def miniature(recipe: Recipe, data_root: Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe on a checkpoint of few weights, a batch of 32 in as many blocks, two steps a stage; then overridden.

    Args:
        recipe: what to make small.
        data_root: where :func:`prepare_data` puts the checkpoint and the tables.
        overrides: dotted settings that go before what is made small.
    """
    backbone: Any = recipe.embedder.backbone
    if backbone.scratch is None:
        checkpoint = checkpoint_of(recipe, data_root)
        backbone = replace(small_backbone(backbone), path=str(checkpoint), scratch=None)
    small = replace(
        recipe,
        name=f"{recipe.name}-miniature",
        threads=1,
        accelerator="cpu",
        embedder=replace(recipe.embedder, backbone=backbone, regions=small_regions(recipe.embedder.regions)),
        stages={name: small_stage(stage) for name, stage in recipe.stages.items()},
    )
    return read_settings(Recipe, parse_yaml(dump_yaml(small), "miniature"), where="miniature", overrides=overrides)


def checkpoint_of(recipe: Recipe, data_root: Path) -> Path:
    """Where the small checkpoint of a recipe lies; another architecture, or other code, has another place."""
    made_of = dump_yaml(small_backbone(recipe.embedder.backbone)), str(recipe.seed), __version__
    return data_root / "checkpoints" / f"{recipe.name}-{fingerprint(*made_of)[:8]}"


def small_backbone(backbone: BackboneSettings) -> Any:
    """The settings of a small random model of the same architecture, its pictures small."""
    settings: Any = backbone
    changes: dict[str, Any] = {
        "path": None, "revision": None, "adapter": None, "adapter_revision": None, "quantize": None,
        "dtype": "float32", "attention": "sdpa", "scratch": Scratch(architecture_of(settings.path)),
    }  # fmt: skip
    if getattr(settings, "media", None) is not None and settings.media.square is not None:
        changes["media"] = replace(settings.media, square=SIDE)
    known = vars(settings)
    return replace(settings, **{name: value for name, value in changes.items() if name in known})


def small_regions(regions: RegionEncoderSettings | None) -> RegionEncoderSettings | None:
    """The region encoder, with a small random SAM 2 where it has a released one."""
    if isinstance(regions, Sam2Regions) and regions.checkpoint is not None:
        return replace(regions, checkpoint=None, revision=None, scratch=Sam2Scratch(), dtype="float32")
    return regions


def architecture_of(path: str) -> str | None:
    """The architecture of a released checkpoint by its name; None is its family's first."""
    return next((found for part, found in ARCHITECTURES.items() if part.lower() in path.lower()), None)


def small_stage(stage: Stage) -> Stage:
    """Two steps of 32 pairs, in as many blocks a batch as the stage has, in full precision."""
    blocks = max(1, stage.sampling.batch_size // stage.sampling.block_size)
    sampling: Sampling = replace(stage.sampling, batch_size=BATCH, block_size=max(1, BATCH // blocks))
    return replace(
        stage, steps=STEPS, sampling=sampling, precision="32-true", workers=0, validation=None, finish="last",
        optim=replace(stage.optim, warmup_steps=min(1, stage.optim.warmup_steps)), strategy="ddp",
    )  # fmt: skip


def prepare_data(recipe: Recipe, whole: Recipe, data_root: Path) -> None:
    """Draw and prepare the miniatures of the recipe's sources below ``data_root``, and make its checkpoint.

    Args:
        recipe: made small.
        whole: what it was made of.
        data_root: where everything comes to lie.
    """
    # takes a second, which a recipe of one's own tables need not wait for
    from data_prep.demo import Sizes, make_demo
    from data_prep.miniatures.draw import prepare_miniature
    from data_prep.own.miniature import draw_own_data

    # whole sources: their sets share archives
    for source in dict.fromkeys(name.partition("/")[0] for name in sets_of(recipe)):
        if source == DEMO:
            with locked(data_root / DEMO):
                make_demo(data_root / DEMO, 0, Sizes(singles=100, pairs=200, clips=24, pages=24, tests=6))
        elif source == OWN_DATA:
            with locked(data_root / "own"):
                draw_own_data(data_root)
        elif source != PSEUDO_WORDS:
            prepare_miniature(source, data_root)
    backbone: Any = whole.embedder.backbone
    if backbone.scratch is None:
        # under torchrun every process comes here, and the first one makes it
        with locked(data_root / "checkpoints"):
            path = checkpoint_of(whole, data_root)
            if not path.is_dir():
                embedder = replace(recipe.embedder, backbone=small_backbone(backbone), lora=None)
                make_embedder(replace(recipe, embedder=embedder), data_root).save(path)
    if any(stage.objective.files for stage in recipe.stages.values()):
        with locked(data_root / PSEUDO_WORDS):
            make_teachers(recipe, data_root)


def make_teachers(recipe: Recipe, data_root: Path) -> None:
    """Draw pictures and find pseudo-words for them in two steps, unless those of the recipe's checkpoint are there."""
    from data_prep.miniatures.studio import draw
    from scripts.make_pseudo_words import Wishes, make

    folder = data_root / PSEUDO_WORDS
    made, of = folder / "made_of.json", {"checkpoint": str(getattr(recipe.embedder.backbone, "path", None))}
    if made.is_file() and json.loads(made.read_text()) == of:
        return
    pictures = [folder / f"pictures/{i}.png" for i in range(BATCH)]
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    for picture in pictures:
        draw(picture.name).save(picture)
    write_json(folder / "phrases.json", {name: [f"a photo of {name} that is here"] for name in ("dog", "bus", "hat")})
    inversion = TextualInversion(steps=2, phrases=str(folder / "phrases.json"))
    make(recipe, data_root, pictures, Wishes(inversion, pairs=1))
    write_json(made, of)
