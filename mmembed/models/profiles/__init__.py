"""Profiles: everything needed to embed as a published model did, and the checkpoints that do (package data).

One YAML holds how a kind of model embeds (``embedder``), the source of each fact (``sources``), and a row for every
published checkpoint (``checkpoints``). No torch here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

from mmembed.errors import InputError, nearest
from mmembed.models.settings.embedder import EmbedderSettings
from mmembed.settings import check_keys, parse_yaml, read_settings

FACTS = ("prompt", "positions", "attention", "pixels", "pooler", "normalize")
"""What every profile names a source of."""


@dataclass(frozen=True)
class Released:
    """One published checkpoint: where it lies, and what it differs in."""

    architecture: str
    """Model type that its ``config.json`` (its base's, of an adapter) says, or ``open_clip``."""
    base: str | None = None
    """Hub id of the model that it is an adapter of; None for whole weights."""
    base_revision: str | None = None
    """Commit of the base's repository."""
    revision: str | None = None
    """Commit of the repository that the row was written for; None is its main branch."""
    licence: str | None = None
    """As its card says it, e.g. ``apache-2.0``; None where none was found."""
    paper: str = ""
    """arXiv number, or an address."""
    published: str | None = None
    """The entry of its scores among the published ones."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Where it embeds otherwise than the profile: part of ``embedder``, written as there."""
    note: str = ""
    """What one must know who opens it."""


@dataclass(frozen=True)
class Profile:
    """How a kind of published model embeds, and the checkpoints of that kind."""

    embedder: EmbedderSettings
    """Everything between an item and its vector."""
    sources: dict[str, str] = field(default_factory=dict)
    """Where each fact was found, by name (:data:`FACTS`): a file of the published code, a card, a paper's section."""
    checkpoints: dict[str, Released] = field(default_factory=dict)
    """The published ones by Hub id, or as open_clip names its weights."""

    def __post_init__(self) -> None:
        for fact in self.sources:
            if fact not in FACTS:
                raise InputError(
                    f"sources.{fact}", expected=f"one of {', '.join(FACTS)}", got=f"'{fact}'",
                    remedy=nearest(fact, FACTS),
                )  # fmt: skip


@cache
def profile_names() -> tuple[str, ...]:
    """The profiles this package knows."""
    entries = (entry.name for entry in files(__name__).iterdir())
    return tuple(sorted(name.removesuffix(".yaml") for name in entries if name.endswith(".yaml")))


@cache
def released_names() -> dict[str, str]:
    """Every published checkpoint that has a row, and its profile."""
    return {name: profile for profile in profile_names() for name in _values(profile).get("checkpoints") or {}}


def load_profile(name: str) -> Profile:
    """A profile by its name.

    Raises:
        InputError: no such profile; the nearest name is given, of a Hub id the nearest that has a row.
    """
    if name not in profile_names():
        known = released_names() if {"/", ":"} & set(name) else profile_names()
        raise InputError("profile", expected="a known profile", got=f"'{name}'", remedy=nearest(name, known))
    return read_settings(Profile, _values(name), where=f"profile {name}")


def released_row(name: str) -> Released:
    """The row of a published checkpoint, by a name of :func:`released_names`."""
    profile = released_names()[name]
    row = _values(profile)["checkpoints"][name]
    return read_settings(Released, row, where=f"profile {profile}: checkpoints.{name}")


def load_released(name: str) -> tuple[Released, EmbedderSettings]:
    """The row of a published checkpoint, and how it embeds.

    Args:
        name: as :func:`released_names` has it.
    """
    profile, row = released_names()[name], released_row(name)
    values = merged(_values(profile)["embedder"], row.settings)
    return row, read_settings(EmbedderSettings, values, where=f"profile {profile}: checkpoints.{name}")


def merged(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Plain values with some of them changed, however deep; another class keeps none of the one before."""
    result = dict(values)
    for key, change in changes.items():
        old = result.get(key)
        if isinstance(old, Mapping) and isinstance(change, Mapping):
            is_other = change.get("class_path") not in (None, old.get("class_path"))
            result[key] = dict(change) if is_other else merged(old, change)
        else:
            result[key] = change
    return result


@cache
def _values(name: str) -> dict[str, Any]:
    values = parse_yaml((files(__name__) / f"{name}.yaml").read_text(encoding="utf-8"), f"profile {name}")
    check_keys(Profile, values, f"profile {name}")
    return dict(values)
