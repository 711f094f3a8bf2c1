"""The model that training on one's own pictures begins with, and the recipe for them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from data_prep.commands import OWN_DATA
from data_prep.own.made import Made
from mmembed.errors import InputError, nearest
from mmembed.files import fingerprint, write_text
from mmembed.models.settings import EmbedderSettings
from mmembed.recipe import Recipe, read_recipe
from mmembed.settings import dump_settings, dump_yaml, read_settings

CONFIG = Path(__file__).resolve().parent.parent / "configs/own_data.yaml"
STAGE = "main"
EPOCHS = 5
"""How often each pair is seen, asked from either side."""
MIN_BATCH, MAX_BATCH, BATCHES = 8, 256, 8
"""Pairs in a batch: a power of two, so that an epoch has so many batches where the bounds allow."""
MIN_STEPS, MAX_STEPS = 50, 4000
LR_WHOLE = 1e-5
"""Rate where all weights train, which move further than an adapter's at the same one."""
PROFILES = {
    "qwen2_vl": "chat",
    "qwen2_5_vl": "chat",
    "qwen3_vl": "chat",
    "llava_next": "vlm2vec_llava_next",
    "phi3_v": "vlm2vec_phi3_v",
}
"""How a model that nobody trained to embed is to embed, by its ``model_type``: Qwen's as other libraries run them."""

Trained = Literal["lora", "all"]


@dataclass(frozen=True)
class Base:
    """The model that training begins with.

    Args:
        model: folder or Hub id.
        adapter: of an adapter on it, where one is named.
        profile: how it embeds, where it does not say so itself.
        overrides: settings of the backbone that differ.
        settings: all of it, complete.
    """

    model: str
    adapter: str | None
    profile: str | None
    overrides: Mapping[str, Any]
    settings: EmbedderSettings

    @property
    def options(self) -> list[str]:
        """What names it to eval/run.py."""
        named = {"--model": self.model, "--adapter": self.adapter, "--profile": self.profile}
        named |= {f"--{name.replace('_', '-')}": str(value) for name, value in self.overrides.items()}
        return [word for option, value in named.items() if value is not None for word in (option, value)]


def find_base(model: str, adapter: str | None, profile: str | None, overrides: Mapping[str, Any]) -> Base:
    """Find out how a model embeds; no weight is loaded.

    Args:
        model: folder of a saved run, a released checkpoint, or a model of a known kind that was not trained to embed.
        adapter: an adapter on it.
        profile: how it embeds; None is what the model says, else what is usual for its kind.
        overrides: settings of the backbone.

    Raises:
        InputError: no such model, or of no known kind.
    """
    # torch and its friends take seconds: not for --help, not for a CSV that cannot be read
    from mmembed.models.profiles import released_names
    from mmembed.models.resolve import Asked, resolve
    from mmembed.models.saved import SETTINGS_FILE

    place = str(Path(model).resolve()) if Path(model).exists() else model
    placed = str(Path(adapter).resolve()) if adapter is not None and Path(adapter).exists() else adapter
    says = (Path(place) / SETTINGS_FILE).is_file() or {place, adapter} & released_names().keys()
    named = profile if profile is not None or says else usual_profile(place)
    settings = resolve(Asked(place, adapter=placed, profile=named, overrides=overrides))
    return Base(model, adapter, named, overrides, settings)


def usual_profile(model: str) -> str | None:
    """The profile for a model that does not say how it embeds; None where it may say so on the Hub.

    Raises:
        InputError: a model of another kind.
    """
    from mmembed.models.hub import find_file, in_words, read_json
    from mmembed.models.saved import SETTINGS_FILE

    with in_words(model, "a folder or Hub id", "check the name"):
        if find_file(model, SETTINGS_FILE, {}) is not None:
            return None
        kind = read_json(model, "config.json", {}).get("model_type")
    if kind not in PROFILES:
        raise InputError(
            model, expected="a saved run, a released checkpoint, or a model of a known kind", got=f"a '{kind}'",
            remedy=f"say how it embeds with --profile; {nearest(str(kind), PROFILES)}",
        )  # fmt: skip
    return PROFILES[kind]


def own_recipe(
    base: Base, made: Made, name: str, *, train: Trained, steps: int | None, overrides: Sequence[str]
) -> Recipe:
    """The recipe for a model and the tables that were made.

    Args:
        base: the model.
        made: the tables.
        name: of the run.
        train: an adapter, or all weights.
        steps: optimiser steps; None is so many that each pair is seen :data:`EPOCHS` times from either side.
        overrides: dotted settings that go before all of that.

    Raises:
        InputError: all weights of a model that is an adapter on another or in half precision, or an unknown setting.
    """
    recipe = read_recipe(CONFIG)
    stage = recipe.stages[STAGE]
    pairs = min(made.train.values())
    batch = batch_for(pairs)
    number = steps_for(pairs * len(made.train), batch) if steps is None else steps
    half = getattr(base.settings.backbone, "dtype", "float32") == "bfloat16"
    stage = replace(
        stage,
        steps=number,
        sampling=replace(stage.sampling, batch_size=batch, block_size=batch),
        optim=replace(
            stage.optim, lr=stage.optim.lr if train == "lora" else LR_WHOLE, warmup_steps=min(number // 10, 100)
        ),
        precision="bf16-mixed" if half else "32-true",
    )
    values = dump_settings(replace(recipe, name=name, stages={STAGE: stage}))
    values["embedder"] = dump_settings(trained_settings(base.settings, recipe, train))
    values["stages"][STAGE]["mixture"] = {task: {"table": f"{OWN_DATA}/{task}.jsonl"} for task in made.train}
    return read_settings(Recipe, values, where=CONFIG, overrides=overrides)


def trained_settings(settings: EmbedderSettings, recipe: Recipe, train: Trained) -> EmbedderSettings:
    """The embedder's settings with a fresh adapter, with the one that it has, or without any."""
    has_adapter = getattr(settings.backbone, "adapter", None) is not None
    if train == "lora":
        return settings if has_adapter else replace(settings, lora=settings.lora or recipe.embedder.lora)
    if has_adapter:
        raise InputError(
            "--train all", expected="a model of whole weights", got="an adapter on another model",
            remedy="train the adapter, or merge it first: Embedder.merge_adapter",
        )  # fmt: skip
    if (dtype := getattr(settings.backbone, "dtype", "float32")) != "float32":
        raise InputError(
            "--train all", expected="weights in float32: in half precision steps of this size are rounded away",
            got=f"weights in {dtype}", remedy="add --dtype float32, or train an adapter",
        )  # fmt: skip
    return replace(settings, lora=None)


def batch_for(pairs: int) -> int:
    """Pairs in a batch."""
    power: int = 2 ** max(0, (pairs // BATCHES).bit_length() - 1)
    return max(MIN_BATCH, min(MAX_BATCH, power))


def steps_for(rows: int, batch: int) -> int:
    """Steps in which each row of all tables is seen :data:`EPOCHS` times."""
    return max(MIN_STEPS, min(MAX_STEPS, round(EPOCHS * rows / batch)))


def write_recipe(path: Path, recipe: Recipe) -> Literal["wrote", "there already", "kept, changed by hand"]:
    """Write a recipe, but never over one that a person has changed.

    Returns:
        What was done.
    """
    text = dump_yaml(recipe)
    old = path.read_text(encoding="utf-8") if path.is_file() else ""
    head, _, body = old.partition("\n")
    if old and head != _head(body):
        return "kept, changed by hand"
    if body == text:
        return "there already"
    write_text(path, f"{_head(text)}\n{text}")
    return "wrote"


def _head(text: str) -> str:
    """First line of what was written here; of a text that was changed it is another."""
    return f"# Written by scripts/own_data.py ({fingerprint(text)[:12]}); changed by hand, it is kept as it is."
