"""Sources: what is published where, and what it becomes here. A release is a YAML in sources/, a set is a row of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from mmembed.errors import InputError, nearest
from mmembed.settings import check_keys, load_yaml

T = TypeVar("T")

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
    repo: str = ""
    """Repository of the rows on the Hub, ``owner/name``; empty where ``folders`` name a folder instead."""
    revision: str | None = None
    """Its commit; null resolves the newest and records it."""
    config: str | None = None
    """Configuration of the repository that the rows are of; null is its only one."""
    split: str = "train"
    """Split that the rows are of."""
    files: tuple[str, ...] = ()
    """Patterns of the files of the rows, for repositories that are no datasets; empty finds them by config and
    split."""
    folders: tuple[str, ...] = ()
    """Names under which people keep rows and media that are on no Hub, below a folder of ``--source``; the first that
    is there counts."""
    obtain: str = ""
    """Where one gets such a folder, and under which terms, in words."""
    parts: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Patterns of the files of each part that the converter reads; of several the first that fits counts. The rows of
    pairs or queries are the part ``rows``."""
    columns: tuple[str, ...] = ()
    """Columns that the rows must have."""
    rows: int | None = None
    """Rows (pairs, or queries) that are expected; null where nobody published the number."""
    targets: int | None = None
    """Targets of a retrieval set that are expected; null where nobody published the number."""
    media: tuple[MediaFiles, ...] = ()
    """Media that the rows name by path."""
    options: dict[str, Any] = field(default_factory=dict)
    """What the converter is told besides."""
    licence: str = ""
    """Licence as the repository states it; empty where nobody has looked it up."""

    @property
    def origin(self) -> str:
        """What the rows are of: the repository, or the folder under its first name."""
        return self.repo or self.folders[0]


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


def read_source(name: str, folder: Path | None = None) -> Source:
    """Read a source: ``about``, ``sets``, and what all sets have in common under ``defaults``; or ``includes``.

    ``{name}`` in the defaults stands for the name of each set.
    ``like: other`` takes the sets of another source, with this one's defaults instead of its own where both speak;
    options one by one.

    Raises:
        InputError: no such source, an unknown field or an unusable value: file, set and field.
    """
    folder = folder or SOURCES
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
        theirs = other.get("defaults", {})
        options = {**theirs.get("options", {}), **defaults.get("options", {})}
        defaults = {**theirs, **defaults, "options": options}
        content = {**content, "sets": {**other["sets"], **content.get("sets", {})}}
    sets = {}
    for set_name, fields in content.get("sets", {}).items():
        common = _named(defaults, str(set_name))
        values = {"name": str(set_name), **common, **(fields or {})}
        where = f"{path}: sets.{set_name}"
        own = _checked(values.get("options") or {}, dict[str, Any], f"{where}.options")
        values["options"] = {**common.get("options", {}), **own}
        sets[str(set_name)] = _placed(_made(SourceSet, values, where), where)
    fields_known = {"about", "includes"}
    head = {key: value for key, value in content.items() if key != "sets"}
    if unknown := sorted(head.keys() - fields_known):
        raise InputError(f"{path}: {unknown[0]}", expected="a field of a source", got=f"'{unknown[0]}'",
                         remedy=nearest(unknown[0], [*fields_known, "sets", "defaults", "like"]))  # fmt: skip
    return Source(name, head.get("about", ""), sets, tuple(head.get("includes", ())))


def _placed(row: SourceSet, where: str) -> SourceSet:
    """The set, if one thing says what its rows are of."""
    if bool(row.repo) == bool(row.folders):
        got = "both" if row.repo else "neither"
        remedy = "folders are for what is on no Hub"
        raise InputError(where, expected="one of repo and folders", got=got, remedy=remedy)
    return row


def _named(values: Any, name: str) -> Any:
    """The values with ``{name}`` filled in."""
    if isinstance(values, str):
        return values.replace("{name}", name)
    if isinstance(values, list):
        return [_named(value, name) for value in values]
    return {key: _named(value, name) for key, value in values.items()} if isinstance(values, Mapping) else values


def _made(kind: type[T], values: Mapping[str, Any], where: str) -> T:
    """A set, or its media, of plain values.

    The parser of settings is not asked: it would take a prompt like "Answer: {text}" for a mapping, and a hundred sets
    would take it seconds.
    """
    check_keys(kind, values, where)
    hints = get_type_hints(kind)
    return kind(**{name: _checked(value, hints[name], f"{where}.{name}") for name, value in values.items()})


def _checked(value: Any, hint: Any, where: str) -> Any:
    """``value`` if it is of the type that a field has; lists become tuples."""
    if hint is Any:
        return value
    kinds = get_args(hint) if get_origin(hint) is UnionType else (hint,)
    if value is None and type(None) in kinds:
        return None
    kind = kinds[0]
    if get_origin(kind) is tuple and isinstance(value, list | tuple):
        inner = get_args(kind)[0]
        return tuple(
            _made(MediaFiles, entry, f"{where}[{i}]")
            if inner is MediaFiles
            else _checked(entry, inner, f"{where}[{i}]")
            for i, entry in enumerate(value)
        )
    if get_origin(kind) is dict and isinstance(value, Mapping):
        return {str(key): _checked(entry, get_args(kind)[1], f"{where}.{key}") for key, entry in value.items()}
    if isinstance(kind, type) and isinstance(value, kind) and not isinstance(value, bool):
        return value
    expected = {str: "words", int: "a whole number"}.get(kind, "a list" if get_origin(kind) is tuple else "a mapping")
    raise InputError(where, expected=expected, got=repr(value), remedy="see the other sources")


def resolve(name: str, folder: Path | None = None) -> list[Source]:
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
