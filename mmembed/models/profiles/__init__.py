"""Profiles: everything needed to embed as a published model did, one YAML each (package data)."""

from importlib.resources import files
from typing import Any

from mmembed.errors import InputError, nearest
from mmembed.settings import parse_yaml


def profile_names() -> list[str]:
    """The profiles this package knows."""
    return sorted(
        entry.name.removesuffix(".yaml") for entry in files(__name__).iterdir() if entry.name.endswith(".yaml")
    )


def load_profile(name: str) -> dict[str, Any]:
    """The settings of a profile as plain values.

    Raises:
        InputError: no such profile; the nearest name is given.
    """
    if name not in profile_names():
        raise InputError("profile", expected="a known profile", got=f"'{name}'", remedy=nearest(name, profile_names()))
    return dict(parse_yaml((files(__name__) / f"{name}.yaml").read_text(encoding="utf-8"), f"profile {name}"))
