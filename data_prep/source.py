"""Sources: what is published where, and what it becomes here. A release is a YAML in sources/, a set is a row of it."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mmembed.errors import InputError, nearest
from mmembed.settings import load_yaml, read_settings

SOURCES = Path(__file__).parent / "sources"


@dataclass(frozen=True)
class MediaFiles:
    """Pictures, frames or clips that the rows of a set name."""

    repo: str | None = None
    """Repository that holds them; null is the rows' own."""
    revision: str | None = None
    """Its commit; null resolves the newest and records it."""
    files: tuple[str, ...] = ()
    """Patterns of the files: archives (.tar, .tar.gz, .tgz, .zip, and parts of one that end in -00, -01, ...), or media
    as they are."""
    into: str = ""
    """Folder below the media root that archives are unpacked into, e.g. ``video_cls``; empty is the root."""
    strip: str = ""
    """Folder at the beginning of the archived paths that is taken off, e.g. ``MMEB``."""
    root: str = ""
    """Folder of the repository that media as they are, or unpacked beside their archive, lie below."""
    sha256: dict[str, str] = field(default_factory=dict)
    """Checksums that were published, by the path of the file."""


@dataclass(frozen=True)
class SourceSet:
    """One set: rows of a repository that become a table of pairs or a retrieval set."""

    name: str
    """The row's key."""
    converter: str
    """What turns rows into pairs or a retrieval set: a name of :data:`data_prep.converters.CONVERTERS`."""
    repo: str
    """Repository of the rows on the Hub, ``owner/name``."""
    revision: str | None = None
    """Its commit; null resolves the newest and records it."""
    config: str | None = None
    """Configuration of the repository that the rows are of; null is its only one."""
    split: str = "train"
    """Split that the rows are of."""
    files: tuple[str, ...] = ()
    """Patterns of the files of the rows, for repositories that are no datasets; empty finds them by config and
    split."""
    columns: tuple[str, ...] = ()
    """Columns that the rows must have."""
    rows: int | None = None
    """Rows (pairs, or queries) that are expected; null where nobody published the number."""
    media: tuple[MediaFiles, ...] = ()
    """Media that the rows name by path."""
    options: dict[str, Any] = field(default_factory=dict)
    """What the converter is told besides."""
    licence: str = ""
    """Licence as the repository states it; empty where it states none."""


@dataclass(frozen=True)
class Source:
    """A release: sets by name; or a group of other sources."""

    name: str
    """The file's name without its suffix: also the folder below the data root."""
    about: str
    """What it is, in a line."""
    sets: dict[str, SourceSet] = field(default_factory=dict)
    """The sets, in order."""
    includes: tuple[str, ...] = ()
    """Sources, or ``source/set``, that a group stands for."""

    def only(self, names: list[str]) -> "Source":
        """The source with these sets alone.

        Raises:
            InputError: a name that is no set.
        """
        for name in names:
            if name not in self.sets:
                remedy = nearest(name, self.sets)
                raise InputError(
                    f"{self.name}/{name}", expected=f"a set of {self.name}", got=f"'{name}'", remedy=remedy
                )
        return replace(self, sets={name: self.sets[name] for name in self.sets if name in names})


def source_names() -> list[str]:
    """Every source and group there is."""
    return sorted(path.stem for path in SOURCES.glob("*.yaml"))


def read_source(name: str, folder: Path = SOURCES) -> Source:
    """Read a source: ``about``, ``sets``, and what all sets have in common under ``defaults``; or ``includes``.

    ``like: other`` takes the sets of another source, with this one's defaults instead of its own where both speak.

    Raises:
        InputError: no such source, an unknown field or an unusable value: file, set and field.
    """
    path = folder / f"{name}.yaml"
    if not path.is_file():
        known = [file.stem for file in folder.glob("*.yaml")]
        raise InputError("SOURCE", expected="a source", got=f"'{name}'", remedy=nearest(name, known))
    content = load_yaml(path)
    if not isinstance(content, Mapping) or not isinstance(content.get("sets", {}), Mapping):
        raise InputError(path, expected="about, and sets by name", got=type(content).__name__, remedy="see the others")
    content = dict(content)
    defaults = content.pop("defaults", {})
    if like := content.pop("like", None):
        other = load_yaml(folder / f"{like}.yaml")
        defaults = {**other.get("defaults", {}), **defaults}
        content = {**content, "sets": {**other["sets"], **content.get("sets", {})}}
    sets = {}
    for set_name, fields in content.get("sets", {}).items():
        values = {"name": str(set_name), **defaults, **(fields or {})}
        values["options"] = {**defaults.get("options", {}), **(fields or {}).get("options", {})}
        sets[str(set_name)] = read_settings(SourceSet, values, where=f"{path}: sets.{set_name}")
    known = {"about", "includes"}
    head = {key: value for key, value in content.items() if key != "sets"}
    if unknown := sorted(head.keys() - known):
        raise InputError(f"{path}: {unknown[0]}", expected="a field of a source", got=f"'{unknown[0]}'",
                         remedy=nearest(unknown[0], [*known, "sets", "defaults", "like"]))  # fmt: skip
    return Source(name, head.get("about", ""), sets, tuple(head.get("includes", ())))


def resolve(name: str, folder: Path = SOURCES) -> list[Source]:
    """The sources that ``name`` stands for: a source, ``source/set``, or a group of these; each set once.

    Raises:
        InputError: no such source or set.
    """
    head, _, set_name = name.partition("/")
    source = read_source(head, folder)
    if set_name:
        return [source.only([set_name])]
    if not source.includes:
        return [source]
    found: dict[str, Source] = {}
    for part in (part for included in source.includes for part in resolve(included, folder)):
        before = found.get(part.name)
        found[part.name] = part if before is None else replace(part, sets={**before.sets, **part.sets})
    return list(found.values())
