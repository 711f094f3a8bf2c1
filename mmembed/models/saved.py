"""What lies beside saved weights: finding ``embedder.yaml``, changing what it says, and naming an adapter's base."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from mmembed.errors import InputError, nearest
from mmembed.models.profiles import profile_names
from mmembed.models.settings import EmbedderSettings
from mmembed.settings import dump_settings, load_yaml, read_settings

SETTINGS_FILE = "embedder.yaml"


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


def override(settings: EmbedderSettings, overrides: Mapping[str, Any]) -> EmbedderSettings:
    """The settings with some of the backbone's changed, checked as if they had stood in the file."""
    known = {f.name for f in fields(settings.backbone)} - {"path", "scratch", "adapter"}
    for name in overrides:
        if name not in known:
            raise InputError(
                "from_pretrained", expected="a known setting", got=f"'{name}'", remedy=nearest(name, known)
            )
    values = dump_settings(settings)
    values["backbone"]["init_args"] |= {name: dump_settings(value) for name, value in overrides.items()}
    return read_settings(EmbedderSettings, values, where="from_pretrained")


def saved_settings(model: str) -> dict[str, Any]:
    """What ``embedder.yaml`` of a directory or Hub repository says, as plain values.

    Raises:
        InputError: nothing there, or no such file in it.
    """
    path = Path(model) / SETTINGS_FILE
    if not path.is_file() and not Path(model).exists():
        path = _from_hub(model)
    if not path.is_file():
        raise InputError(
            model, expected=f"{SETTINGS_FILE} beside the weights", got="none",
            remedy=f"name a profile: profile='...' ({', '.join(profile_names())})",
        )  # fmt: skip
    return dict(load_yaml(path))


def _from_hub(model: str) -> Path:
    from transformers.utils import cached_file

    try:
        found = cached_file(model, SETTINGS_FILE, _raise_exceptions_for_missing_entries=False)
    except OSError as error:
        raise InputError(
            model, expected="a directory or Hub id", got=" ".join(str(error).split()), remedy="check the name"
        ) from error
    return Path(found) if found else Path(model) / SETTINGS_FILE
