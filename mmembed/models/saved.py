"""What lies beside saved weights: ``embedder.yaml`` and changes to it, an adapter's base, weights of other parts."""

from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mmembed.errors import InputError, nearest
from mmembed.models.checkpoint import refuse_difference
from mmembed.models.hub import find_file, in_words
from mmembed.models.profiles import profile_names
from mmembed.models.released import read_torch_file
from mmembed.models.repository import snapshot
from mmembed.models.settings import EmbedderSettings
from mmembed.settings import dump_settings, load_yaml, read_settings

_ADDRESS = ("a directory or Hub id", "check the name")
SETTINGS_FILE = "embedder.yaml"
POOLER_FILE, REGIONS_FILE = "pooler.safetensors", "regions.safetensors"


def base_of(path: str, target: Path) -> str:
    """The name of an adapter's base, a local one made absolute; it must not be what the adapter is written over."""
    if not Path(path).exists():
        return path
    base = Path(path).resolve()
    if base == target.resolve():
        raise InputError(
            target,
            expected="another directory than the base model's",
            got="the same",
            remedy="save the adapter beside it",
        )
    return str(base)


def override(
    settings: EmbedderSettings,
    overrides: Mapping[str, Any],
    regions: Mapping[str, Any] | None = None,
    speed: Mapping[str, Any] | None = None,
) -> EmbedderSettings:
    """The settings with some of the backbone's, region encoder's and ``speed``'s changed, checked as if in the file.

    Raises:
        InputError: a setting that the part does not have, or one for a region encoder where there is none.
    """
    known = {f.name for f in fields(settings.backbone)} - {"path", "scratch", "adapter"}
    overrides = {name: _named(value) for name, value in overrides.items()}
    for name in overrides:
        if name not in known:
            raise InputError(
                "from_pretrained", expected="a known setting", got=f"'{name}'", remedy=nearest(name, known)
            )
    values = dump_settings(settings)
    values["backbone"]["init_args"] |= {name: dump_settings(value) for name, value in overrides.items()}
    values["speed"] |= speed or {}
    if regions:
        values["regions"] = _other_regions(settings, regions)
    return read_settings(EmbedderSettings, values, where="from_pretrained")


def _other_regions(settings: EmbedderSettings, changes: Mapping[str, Any]) -> dict[str, Any]:
    """What the settings say of the region encoder, with some of it changed."""
    where = "from_pretrained: regions"
    if settings.regions is None:
        raise InputError(where, expected="a model with a region encoder", got="one without", remedy="leave it out")
    known = {f.name for f in fields(settings.regions)}
    for name in changes:
        if name not in known:
            raise InputError(where, expected="a known setting", got=f"'{name}'", remedy=nearest(name, known))
    values: dict[str, Any] = dump_settings(settings)["regions"]
    values["init_args"] |= {name: dump_settings(value) for name, value in changes.items()}
    return values


def refuse_foreign(target: Path) -> None:
    """Refuse to write over what is no saved embedder.

    Raises:
        InputError: a file, or a folder that holds something else.
    """
    holds = sorted(path.name for path in target.iterdir()) if target.is_dir() else []
    if (target.exists() and not target.is_dir()) or (holds and SETTINGS_FILE not in holds):
        raise InputError(
            target, expected="a new folder, an empty one, or a saved embedder to replace",
            got=f"a folder of {', '.join(holds[:5])}" if holds else "a file", remedy="name another folder",
        )  # fmt: skip


def refuse_run(model: str | Path) -> None:
    """Refuse a profile for what brings its own settings and no checkpoint.

    Raises:
        InputError: a saved adapter.
    """
    folder = Path(model)
    if (folder / SETTINGS_FILE).is_file() and not (folder / "config.json").is_file():
        raise InputError(
            folder, expected="a released checkpoint, for a profile", got=f"a saved embedder with its {SETTINGS_FILE}",
            remedy="leave profile out",
        )  # fmt: skip


def saved_settings(model: str, revision: str | None = None) -> dict[str, Any]:
    """What ``embedder.yaml`` of a directory or Hub repository says, as plain values.

    Args:
        model: directory or Hub id.
        revision: commit of the Hub repository.

    Raises:
        InputError: nothing there, or no such file in it.
    """
    path = Path(beside(model, SETTINGS_FILE, revision))
    if not path.is_file():
        final = Path(model) / "final"
        profile = f"name a profile: profile='...' ({', '.join(profile_names())})"
        raise InputError(
            model, expected=f"{SETTINGS_FILE} beside the weights", got="none",
            remedy=f"name {final}" if (final / SETTINGS_FILE).is_file() else profile,
        )  # fmt: skip
    return dict(load_yaml(path) or {})


def beside(model: str, name: str, revision: str | None = None) -> str:
    """The path of a file of a directory or Hub repository, whether it is there or not."""
    path = Path(model) / name
    if not Path(model).exists() and (model.count("/") > 1 or model.startswith((".", "~", "/"))):
        raise InputError(model, expected=_ADDRESS[0], got="no such directory", remedy="check the path")
    return str(path if Path(model).exists() else _from_hub(model, name, revision) or path)


def folder_beside(model: str, name: str, revision: str | None = None) -> str:
    """The path of a folder of a directory or Hub repository.

    Raises:
        InputError: the Hub repository has none of that name.
    """
    if Path(model).exists():
        return str(Path(model) / name)
    with in_words(model, *_ADDRESS):
        folder = snapshot(model, revision, [f"{name}/*"]) / name
    if not folder.is_dir():
        raise InputError(
            model, expected=f"a folder {name}, which its {SETTINGS_FILE} names", got="none in this revision",
            remedy="save and push the model again",
        )  # fmt: skip
    return str(folder)


def weights_of(part: nn.Module) -> dict[str, Tensor]:
    """The weights of a part that are saved with it: all but those that another checkpoint has."""
    unsaved: tuple[str, ...] = getattr(part, "unsaved", ())
    return {name: value for name, value in part.state_dict().items() if not name.startswith(unsaved)}


def save_part(part: nn.Module, path: Path) -> bool:
    """Write the weights of a pooler or region encoder if it has any; whether it has."""
    state = {name: value.detach().cpu().contiguous() for name, value in weights_of(part).items()}
    if state:
        save_file(state, path)
    return bool(state)


def load_part(part: nn.Module, path: str, name: str) -> None:
    """Read the weights of a pooler or region encoder, which errors call ``name``.

    Raises:
        InputError: no such file, or a missing or unexpected weight, or one of another shape; they are listed.
    """
    if not Path(path).is_file():
        raise InputError(
            path, expected=f"the {name}'s weights", got="no such file", remedy="check the path, or save the model again"
        )
    state = _read_part(part, path, name)
    refuse_difference(
        path,
        state,
        weights_of(part),
        expected=f"exactly the weights of the {name} in the settings",
        remedy="use the settings it was trained with",
    )
    part.load_state_dict(state, strict=False)


def _read_part(part: nn.Module, path: str, name: str) -> dict[str, Tensor]:
    """Weights of a safetensors file, or of a released one of torch's own.

    A part that knows the layouts of released files has a method ``released``; otherwise dicts of dicts are joined by
    dots (VIRTUE).
    """
    released: Callable[[Mapping[str, Any]], dict[str, Any]] = getattr(part, "released", _joined)
    if Path(path).suffix == ".safetensors":
        with in_words(path):
            values: Any = load_file(path)
    else:
        values = read_torch_file(path, f"the {name}'s weights", "download it again")
    state = released(values) if isinstance(values, dict) else {}
    if not state or not all(isinstance(value, Tensor) for value in state.values()):
        held = ", ".join(map(str, values)) if isinstance(values, dict) else type(values).__name__
        raise InputError(
            path, expected=f"the {name}'s weights by name", got=held[:200] or "nothing", remedy="download it again"
        )
    return state


def _joined(values: Mapping[str, Any]) -> dict[str, Any]:
    state: dict[str, Any] = {}
    for outer, inner in values.items():
        state |= (
            {f"{outer}.{key}": value for key, value in inner.items()} if isinstance(inner, dict) else {outer: inner}
        )
    return state


def _named(value: Any) -> Any:
    """Torch's own names of types are those of the settings."""
    return str(value).removeprefix("torch.") if isinstance(value, torch.dtype) else value


def _from_hub(model: str, name: str, revision: str | None) -> Path | None:
    with in_words(model, *_ADDRESS):
        return find_file(model, name, {"revision": revision} if revision else {})
