"""Whether and where a stage keeps its tower's features on disk."""

import logging
from dataclasses import replace
from pathlib import Path

from torch import nn

from mmembed.errors import InputError
from mmembed.models.embedder import Embedder
from mmembed.models.feature_store import FeatureStore
from mmembed.models.identity import tower_identity
from mmembed.training.settings import FeatureFiles, Stage

logger = logging.getLogger(__name__)

GB = 1 << 30
# what modules call the share of their numbers that they put out when training
_DROPS = ("p", "prob", "drop_prob", "dropout", "dropout_p", "attention_dropout")


def at_root(stage: Stage, data_root: Path) -> Stage:
    """The stage with the folder of its features as it is called from here."""
    if stage.features is None:
        return stage
    return replace(stage, features=replace(stage.features, path=str(data_root / stage.features.path)))


def check_features(embedder: Embedder, stage: Stage) -> None:
    """Refuse to keep features that training changes, and tell of those that no step would meet again.

    Raises:
        InputError: the tower trains; a weight of it is named.
    """
    if stage.features is None:
        return
    if not embedder.tower_is_frozen:
        parts = (("backbone", embedder.backbone.tower), ("regions", embedder.regions))
        trains = next(f"{part}: {n}" for part, of in parts for n, p in of.named_parameters() if p.requires_grad)
        raise InputError(
            "stage.features", expected="a tower that does not train, and so gives a medium the same in each epoch",
            got=f"{trains} trains", remedy="write features: null, or freeze the tower (freeze, or a lora without it)",
        )  # fmt: skip
    regions = getattr(embedder.backbone.preprocessor, "regions", None)
    if stage.region_prompts is not None and regions is not None and regions.changes_pixels:
        logger.warning(
            "stage.features: region_prompts draws other regions at each step, and %s puts them into the pixels: the "
            "features of queries' pictures are written and hardly ever met again; features: null saves the disk",
            type(regions).__name__,
        )


def open_store(embedder: Embedder, settings: FeatureFiles) -> FeatureStore:
    """The store of the embedder's tower as it is now, under the autocast that is on here.

    Raises:
        InputError: a tower that draws what it puts out (dropout), so that no two epochs would have the same features.
    """
    for name, module in embedder.backbone.tower.named_modules():
        if module.training and (dropped := _dropped(module)):
            raise InputError(
                "stage.features", expected="a tower without dropout", got=f"{name} drops a share of {dropped}",
                remedy="write features: null, or set its dropout to 0",
            )  # fmt: skip
    return FeatureStore(settings.path, tower_identity(embedder), max_bytes=int(settings.max_gb * GB))


def _dropped(module: nn.Module) -> float:
    """The share of its numbers that a module puts out when training, as far as its attributes say."""
    shares = [value for name in _DROPS if isinstance(value := getattr(module, name, None), float)]
    return max(shares, default=0.0)
