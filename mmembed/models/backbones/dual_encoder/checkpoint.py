"""open_clip's checkpoints, opened strictly: safetensors only, every weight in its place, and the activation they know.

Wherever one comes from, it becomes a config in open_clip's own layout, from which open_clip makes the model.
"""

import json
import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mmembed.errors import InputError
from mmembed.files import write_json
from mmembed.models.backbones.dual_encoder.from_transformers import (
    is_transformers,
    make_tokenizer,
    read_config,
    read_weights,
)
from mmembed.models.backbones.dual_encoder.released import released
from mmembed.models.backbones.dual_encoder.said import CONFIG, read_said
from mmembed.models.backbones.dual_encoder.timm_tower import load_timm_tower, set_activation, timm_vision
from mmembed.models.checkpoint import refuse_gaps
from mmembed.models.hub import find_file, in_words, where_of
from mmembed.models.repository import snapshot
from mmembed.models.settings import DualEncoder, TimmTower

WEIGHTS = "open_clip_model.safetensors"
# what open_clip looks for in a directory, without what is pickled
_WEIGHTS = (WEIGHTS, "open_clip_pytorch_model.safetensors", "model.safetensors")
_FROM_HUB = (CONFIG, *_WEIGHTS[:2], "*token*", "vocab.*", "merges.txt", "*.model")
# what open_clip raises for files that are not its own, and what is said then
_OTHERWISE = (
    f"an open_clip checkpoint with {CONFIG}, safetensors and tokenizer",
    "check the path, Hub id or architecture:tag",
    (TypeError, AssertionError, RuntimeError),
)
# scale and bias of the loss; open_clip gives them the shape that the model has
_OF_LOSS = ("logit_scale", "logit_bias")


@dataclass
class DualCheckpoint:
    """A model, its tokenizer, and what ``open_clip_config.json`` says of both."""

    model: Any
    tokenizer: Any
    config: dict[str, Any]

    @property
    def preprocessing(self) -> dict[str, Any]:
        """Size, mean and deviation of pictures, and how they are resized."""
        return dict(self.model.visual.preprocess_cfg)


@dataclass
class Source:
    """What a checkpoint is made of.

    Args:
        tokenizer: made when it is called.
        config: of the model.
        preprocessing: of pictures.
        weights: their file, or themselves.
    """

    tokenizer: Callable[[], Any]
    config: dict[str, Any]
    preprocessing: dict[str, Any]
    weights: Path | dict[str, Tensor]


def open_checkpoint(settings: DualEncoder) -> DualCheckpoint:
    """Open what ``settings.path`` names.

    Raises:
        InputError: nothing there, no safetensors or not all of them, missing, unexpected or reshaped weights, which are
            listed, an unknown architecture, or weights trained with another activation than the architecture's.
    """
    path = str(settings.path)
    with in_words(path, *_OTHERWISE):
        source = _find(path, settings.revision)
        fresh = settings.image_tower
        model, config = make_model(source.config, source.preprocessing, fresh)
        tokenizer = source.tokenizer()
        _load(model, source.weights, path, ("visual.",) if fresh is not None else ())
    _check_vocabulary(path, model, tokenizer)
    return DualCheckpoint(model.to(getattr(torch, settings.dtype)), tokenizer, config)


def make_model(
    config: dict[str, Any], preprocessing: dict[str, Any], image_tower: TimmTower | None, seed: int | None = None
) -> tuple[Any, dict[str, Any]]:
    """A model with random weights, but for those of a new image tower, and its config.

    Args:
        config: ``model_cfg`` in open_clip's layout.
        preprocessing: ``preprocess_cfg``.
        image_tower: what stands in the place of the config's image tower.
        seed: of the random weights but a new image tower's, which has its own; None where all of them are loaded.

    Raises:
        InputError: the image tower is unknown, or its weights are not there or not its own.
    """
    if image_tower is not None:
        vision, preprocessing = timm_vision(image_tower)
        config = config | {"vision_cfg": vision}
    model = _draw(config, preprocessing, seed if image_tower is None else image_tower.seed)
    if image_tower is not None:
        visual = model.visual
        with _quiet():
            load_timm_tower(visual, image_tower)
        if seed is not None:
            model = _draw(config, preprocessing, seed)
            model.visual = visual
    return model, config


def save_checkpoint(checkpoint: DualCheckpoint, directory: Path) -> None:
    """Write model, tokenizer and preprocessing facts as open_clip lays them out."""
    said = {"model_cfg": checkpoint.config, "preprocess_cfg": checkpoint.preprocessing}
    write_json(directory / CONFIG, said)
    weights = {name: value.detach().cpu().contiguous() for name, value in checkpoint.model.state_dict().items()}
    save_file(weights, directory / WEIGHTS)
    if hasattr(checkpoint.tokenizer, "save_pretrained"):
        checkpoint.tokenizer.save_pretrained(directory)


def _draw(config: dict[str, Any], preprocessing: dict[str, Any], seed: int | None) -> Any:
    with tempfile.TemporaryDirectory() as directory, _quiet():
        write_json(Path(directory) / CONFIG, {"model_cfg": config, "preprocess_cfg": preprocessing})
        if seed is not None:
            torch.manual_seed(seed)
        model = open_clip.create_model(f"local-dir:{directory}", load_weights=False, pretrained_text=False)
        if hasattr(model, "text_decoder"):
            # the one weight that open_clip leaves as the memory was
            nn.init.normal_(model.text_decoder.text_projection, std=config["embed_dim"] ** -0.5)
    set_activation(model.visual, config["vision_cfg"])
    return model


def _find(path: str, revision: str | None) -> Source:
    if ":" in path and not Path(path).exists():
        found = released(path)
        weights = find_file(found.repository, found.file, where_of(found.repository, revision))
        if weights is None:
            raise InputError(
                f"{found.repository}: {found.file}", expected=f"the weights of {path}", got="no such file",
                remedy="leave revision out; offline, download it anew",
            )  # fmt: skip
        return Source(partial(open_clip.get_tokenizer, found.model), found.config, found.preprocessing, weights)
    where = where_of(path, revision)
    if find_file(path, CONFIG, where) is None and is_transformers(path, where):
        config, preprocessing = read_config(path, where)
        tokenizer = partial(make_tokenizer, path, where, config)
        return Source(tokenizer, config, preprocessing, read_weights(path, where))
    directory = Path(path)
    if not directory.is_dir():
        directory = snapshot(path, revision, _FROM_HUB)
    config, preprocessing = read_said(path, json.loads((directory / CONFIG).read_text(encoding="utf-8")))
    tokenizer = partial(open_clip.get_tokenizer, f"local-dir:{directory}")
    return Source(tokenizer, config, preprocessing, _weights(directory))


def _weights(directory: Path) -> Path:
    for name in _WEIGHTS:
        if (directory / name).is_file():
            return directory / name
    raise InputError(
        directory, expected=WEIGHTS, got=", ".join(sorted(p.name for p in directory.iterdir())),
        remedy="download it again; pickled weights are refused",
    )  # fmt: skip


def _load(model: Any, given: Path | dict[str, Tensor], path: str, but: tuple[str, ...]) -> None:
    """Load all weights, or all ``but`` those whose names begin so."""
    wanted = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    if isinstance(given, dict):
        shapes = {name: tuple(value.shape) for name, value in given.items()}
    else:
        with safe_open(given, "pt") as weights:
            shapes = {name: tuple(weights.get_slice(name).get_shape()) for name in weights.keys()}  # noqa: SIM118
    skipped = (*but, *_OF_LOSS)
    # open_clip would stretch position embeddings of another size in silence
    reshaped = [name for name in wanted if shapes.get(name, wanted[name]) != wanted[name]]
    refuse_gaps(path, _gaps(mismatched=[(name,) for name in reshaped if not name.startswith(skipped)]), ())
    with _quiet():
        if but or isinstance(given, dict):
            state = given if isinstance(given, dict) else load_file(given)
            dropped = skipped if but else ()
            found = model.load_state_dict({k: v for k, v in state.items() if not k.startswith(dropped)}, strict=False)
        else:
            found = open_clip.load_checkpoint(model, str(given), strict=False)
    missing = [name for name in found.missing_keys if not name.startswith(skipped)]
    refuse_gaps(path, _gaps(missing=missing, unexpected=found.unexpected_keys), ())


def _gaps(missing: Any = (), unexpected: Any = (), mismatched: Any = ()) -> dict[str, Any]:
    return {"missing_keys": missing, "unexpected_keys": unexpected, "mismatched_keys": mismatched}


def _check_vocabulary(path: str, model: Any, tokenizer: Any) -> None:
    known = getattr(model, "text", model).vocab_size
    words = tokenizer.vocab_size if hasattr(tokenizer, "vocab_size") else len(tokenizer.tokenizer)
    if words > known:
        raise InputError(
            path, expected=f"a tokenizer of at most {known} words, which the text tower knows", got=words,
            remedy="take config and tokenizer from the same checkpoint",
        )  # fmt: skip


@contextmanager
def _quiet() -> Iterator[None]:
    """Without open_clip's remarks; it makes them on the root logger, and would set that up where nobody had."""
    root, silent = logging.getLogger(), logging.NullHandler()
    before = root.manager.disable
    root.addHandler(silent)
    logging.disable(max(before, logging.WARNING))
    try:
        with torch.random.fork_rng():
            yield
    finally:
        logging.disable(before)
        root.removeHandler(silent)
