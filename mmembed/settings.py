"""Typed settings from YAML and the command line: jsonargparse, a strict YAML loader, and errors in words.

A *part* is a frozen dataclass deriving from :class:`Part`; where a field's type is a part, YAML names the subclass by
``class_path: Name`` with its fields under ``init_args``. Nothing here imports torch.
"""

import copy
import dataclasses
import functools
import inspect
import re
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import jsonargparse
import yaml

from mmembed.errors import InputError, nearest

T = TypeVar("T")


class Part:
    """Base of the settings whose subclasses are interchangeable: a field of such a type takes any of them by name."""


jsonargparse.set_parsing_settings(subclasses_enabled=[Part], docstring_parse_attribute_docstrings=True)


_MERGE = "tag:yaml.org,2002:merge"


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader that refuses a repeated key and reads ``5e-5`` as a number, as YAML 1.2 does.

    Rows that are alike take the fields of another by ``<<: *anchor``; what stands beside it goes before.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == _MERGE:
                continue
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise InputError(
                    f"line {key_node.start_mark.line + 1}: {key}",
                    expected="each key once",
                    got="the key again",
                    remedy="keep one of the two",
                )
            seen.add(key)
        return dict(super().construct_mapping(node, deep))


_StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+0123456789."),
)


def parse_yaml(text: str, where: object) -> Any:
    """Read YAML text strictly; ``where`` names it in errors."""
    try:
        return yaml.load(text, Loader=_StrictLoader)
    except InputError as error:
        raise error.within(where) from None
    except yaml.YAMLError as error:
        problem = " ".join(str(error).split())
        raise InputError(where, expected="YAML", got=problem, remedy="mend the line named") from error


def load_yaml(path: Path | str) -> Any:
    """Read a YAML file; a repeated key or broken syntax is an InputError naming file and line."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(path, expected="a readable YAML file", got=error.strerror, remedy="check the path") from error
    return parse_yaml(text, path)


def load_named(path: Path | str, key: str, row: str) -> dict[str, dict[str, Any]]:
    """Read a YAML file of one ``key``, a mapping of names to rows; each row comes with its own ``name``.

    Args:
        path: the file.
        key: the only key of the file, e.g. ``tasks``.
        row: what errors call a row.

    Raises:
        InputError: another key, no row, or a row that is no mapping of fields or says its name again: file and row.
    """
    return check_named(path, load_yaml(path), key, row)


def check_named(path: Path | str, content: Any, key: str, row: str) -> dict[str, dict[str, Any]]:
    """The rows of a file that was read; see :func:`load_named`."""
    rows = content.get(key) if isinstance(content, Mapping) and set(content) == {key} else None
    if not isinstance(rows, Mapping) or not rows:
        got = ", ".join(map(str, content)) if isinstance(content, Mapping) else type(content).__name__
        expected = f"one key, {key}: a mapping of name to {row}"
        raise InputError(path, expected=expected, got=got, remedy=f"write {key}:, then each {row} under its name")
    for name, fields in rows.items():
        where = f"{path}: {key}.{name}"
        if not isinstance(fields, Mapping):
            got = type(fields).__name__
            raise InputError(where, expected="a mapping of fields", got=got, remedy="write field: value lines")
        if "name" in fields:
            got, remedy = f"'{fields['name']}'", f"the {row}'s key is its name"
            raise InputError(f"{where}.name", expected="no such field", got=got, remedy=remedy)
    return {str(name): {"name": str(name), **fields} for name, fields in rows.items()}


def make_parser(settings: type, **options: Any) -> jsonargparse.ArgumentParser:
    """A parser for ``settings`` with ``--config FILE``, ``--print_config`` and a dotted option for every field."""
    jsonargparse.set_loader("yaml", lambda text: parse_yaml(text, "settings"), exceptions=(InputError,))
    parser = jsonargparse.ArgumentParser(exit_on_error=False, **options)
    parser.add_argument("--config", action="config", help="YAML file of settings; dotted options after it override")
    parser.add_class_arguments(settings, None, fail_untyped=True)
    return parser


@functools.cache
def _parser_of(settings: type) -> jsonargparse.ArgumentParser:
    # making one takes longer than what it parses
    return make_parser(settings)


def read_settings(
    settings: type[T], values: Mapping[str, Any], *, where: object = "settings", overrides: Sequence[str] = ()
) -> T:
    """Make ``settings`` from plain values and dotted overrides (``["--a.b", "1"]``).

    Raises:
        InputError: an unknown key (nearest name given), an unknown part, a value of the wrong type, a missing value;
            the message names ``where`` and the dotted key.
    """
    options = [option[2:].split("=")[0] for option in overrides if option.startswith("--")]
    for option in options:
        _check_override(settings, option, values)
    if overrides:
        values, overrides = _set_deep(settings, values, overrides)
    check_keys(settings, values, where, options)
    parser = _parser_of(cast(type, settings))
    # the plain values go in as a file would: through --config, so that an override may reach inside a mapping
    text = yaml.safe_dump(dict(values), sort_keys=False)
    try:
        parsed = parser.parse_args([f"--config={text}", *overrides])
        made = parser.instantiate(parsed)
        return settings(**{f.name: made[f.name] for f in dataclasses.fields(cast(Any, settings))})
    except InputError as error:
        raise error.within(where) from None
    except (jsonargparse.ArgumentError, TypeError, ValueError) as error:
        if isinstance(error.__cause__, InputError):
            raise error.__cause__.within(where) from None
        _narrow(settings, values, where)
        raise _in_words(error, where) from error


def dump_settings(value: Any) -> Any:
    """Plain YAML-ready values of settings, every field written out; :func:`read_settings` reads them back."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        inner = {f.name: dump_settings(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"class_path": type(value).__name__, "init_args": inner} if isinstance(value, Part) else inner
    if isinstance(value, Mapping):
        return {str(key): dump_settings(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [dump_settings(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def dump_yaml(value: Any) -> str:
    """Settings as YAML text."""
    return str(yaml.safe_dump(dump_settings(value), sort_keys=False, allow_unicode=True, width=120))


def flat_settings(values: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted names and their values, of what :func:`dump_settings` gives."""
    if not isinstance(values, Mapping):
        return {prefix: values}
    return {
        name: value
        for key, inner in values.items()
        for name, value in flat_settings(inner, f"{prefix}.{key}" if prefix else str(key)).items()
    }


def check_keys(settings: type, values: Any, where: object, overridden: Sequence[str] = ()) -> None:
    """Refuse a key that ``settings`` (or a part inside it) does not have, naming the nearest one, and a missing value.

    ``overridden`` are dotted options given besides ``values``: what they bring is not missing.
    """
    if not isinstance(values, Mapping):
        raise InputError(
            where,
            expected="a mapping of settings",
            got=type(values).__name__,
            remedy="write key: value lines",
        )
    hints = typing.get_type_hints(settings)
    names = [f.name for f in dataclasses.fields(settings)]
    for key, value in values.items():
        here = _inside(where, key)
        if key not in names:
            raise InputError(
                here,
                expected=f"a setting of {settings.__name__}",
                got=f"'{key}'",
                remedy=nearest(str(key), names),
            )
        _check_value(hints[key], value, here, overridden)
    for f in dataclasses.fields(settings):
        no_default = f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        if no_default and f.name not in values and not any(option.split(".")[-1] == f.name for option in overridden):
            raise InputError(
                _inside(where, f.name),
                expected="a value",
                got="nothing",
                remedy="give it in the file or as an option",
            )


def check_types(settings: Any, where: str = "") -> None:
    """Refuse values of settings made in Python that a file with them would be refused for.

    Raises:
        InputError: a value of another type than its field's; the dotted name is given.
    """
    hints = _hints(cast(type, type(settings)))
    for f in dataclasses.fields(settings):
        value, here = getattr(settings, f.name), f"{where}.{f.name}" if where else f.name
        hint = hints[f.name]
        if not _fits(value, hint):
            known = [str(option) for option in _literals(hint)]
            raise InputError(
                here, expected=f"one of {', '.join(known)}" if known else f"a value of type {_short(hint)}",
                got=repr(value), remedy=nearest(str(value), known) if known else "see its docstring",
            )  # fmt: skip
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            check_types(value, here)


@functools.cache
def _hints(settings: type) -> dict[str, Any]:
    return typing.get_type_hints(settings)


def _fits(value: Any, hint: Any) -> bool:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return True
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, option) for option in inner)
    if origin is typing.Literal:
        return value in inner
    if origin is tuple:
        each = inner[:1] * len(value) if isinstance(value, tuple | list) and inner[-1] is ... else inner
        return isinstance(value, tuple | list) and len(value) == len(each) and all(map(_fits, value, each))
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, origin or hint or type(None))


def _literals(hint: Any) -> list[Any]:
    """The words that a field takes, where it takes words."""
    if typing.get_origin(hint) is typing.Literal:
        return list(typing.get_args(hint))
    return [word for option in typing.get_args(hint) for word in _literals(option)]


def _short(hint: Any) -> str:
    return getattr(hint, "__name__", None) or re.sub(r"[a-zA-Z_]+\.", "", str(hint))


def subclasses(part: type) -> dict[str, type]:
    """The concrete parts that may stand where ``part`` is asked for, by name."""
    is_abstract = part.__dict__.get("abstract", False) or inspect.isabstract(part)
    found = {} if is_abstract else {part.__name__: part}
    children: list[type] = part.__subclasses__()
    for child in children:
        found |= subclasses(child)
    return found


def _inside(where: object, key: str) -> str:
    """``file: a.b`` for key b inside ``file: a``."""
    return f"{where}.{key}" if ": " in str(where) else f"{where}: {key}"


def _check_value(hint: Any, value: Any, where: str, overridden: Sequence[str]) -> None:
    hint = _without_none(hint)
    if typing.get_origin(hint) is dict and isinstance(value, Mapping):
        for key, item in value.items():
            _check_value(typing.get_args(hint)[1], item, f"{where}.{key}", overridden)
    elif isinstance(hint, type) and issubclass(hint, Part) and value is not None:
        _check_part(hint, value, where, overridden)
    elif dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        check_keys(cast(type, hint), value, where, overridden)


def _check_part(part: type, value: Any, where: str, overridden: Sequence[str]) -> None:
    known = subclasses(part)
    name = value.get("class_path") if isinstance(value, Mapping) else value
    if str(name).rsplit(".", 1)[-1] not in known:
        raise InputError(
            where,
            expected=f"class_path of a {part.__name__}",
            got=f"'{name}'",
            remedy=nearest(str(name), known),
        )
    if isinstance(value, Mapping):
        for key in value:
            if key not in ("class_path", "init_args"):
                raise InputError(
                    f"{where}.{key}",
                    expected="class_path and init_args",
                    got=f"'{key}'",
                    remedy="put settings under init_args",
                )
        check_keys(known[str(name).rsplit(".", 1)[-1]], value.get("init_args") or {}, where, overridden)


def _check_override(settings: type, dotted: str, values: Any) -> None:
    """Walk a dotted option through the types; names of a mapping (stages) must be there already."""
    hint: Any = settings
    head = f"--{dotted}"
    for name in dotted.split("."):
        hint = _without_none(hint)
        if typing.get_origin(hint) is dict:
            if name not in (values or {}):
                raise InputError(
                    head,
                    expected="a name the recipe has",
                    got=f"'{name}'",
                    remedy=nearest(name, values or {}),
                )
            hint = typing.get_args(hint)[1]
        elif isinstance(hint, type) and issubclass(hint, Part):
            return  # which part it is may be overridden too: jsonargparse checks these
        elif dataclasses.is_dataclass(hint):
            hints = typing.get_type_hints(hint)
            if name not in hints and name not in ("config", "print_config"):
                raise InputError(head, expected="a known option", got=f"'{name}'", remedy=nearest(name, hints))
            hint = hints.get(name)
        else:
            return
        values = values.get(name) if isinstance(values, Mapping) else None


def _set_deep(
    settings: type, values: Mapping[str, Any], overrides: Sequence[str]
) -> tuple[Mapping[str, Any], Sequence[str]]:
    """Put overrides that reach into a mapping inside a mapping into the values; jsonargparse reaches into one only.

    Returns:
        The values with these set, and the other overrides.
    """
    changed, rest, left = copy.deepcopy(dict(values)), [], list(overrides)
    while left:
        option = left.pop(0)
        dotted, equals, value = option.removeprefix("--").partition("=")
        if not option.startswith("--") or _mappings_on(settings, dotted.split(".")) < 2:
            rest.append(option)
            continue
        if not equals:
            value = left.pop(0) if left else ""
        *outer, last = dotted.split(".")
        inner = changed
        for name in outer:
            inner = inner.setdefault(name, {})
        inner[last] = parse_yaml(value, f"--{dotted}")
    return changed, rest


def _mappings_on(settings: type, names: Sequence[str]) -> int:
    """How many mappings a dotted name reaches into."""
    hint: Any = settings
    count = 0
    for name in names:
        hint = _without_none(hint)
        if typing.get_origin(hint) is dict:
            count += 1
            hint = typing.get_args(hint)[1]
        elif dataclasses.is_dataclass(hint) and not (isinstance(hint, type) and issubclass(hint, Part)):
            hint = typing.get_type_hints(hint).get(name)
        else:
            return count
    return count


def _without_none(hint: Any) -> Any:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        rest = [arg for arg in typing.get_args(hint) if arg is not type(None)]
        return rest[0] if len(rest) == 1 else hint
    return hint


def _narrow(settings: type, values: Mapping[str, Any], where: object) -> None:
    """Read the entries of each mapping alone, so that an error names the entry jsonargparse leaves out."""
    for name, hint in typing.get_type_hints(settings).items():
        if typing.get_origin(hint) is dict and dataclasses.is_dataclass(typing.get_args(hint)[1]):
            for key, entry in (values.get(name) or {}).items():
                read_settings(
                    cast(type, typing.get_args(hint)[1]), entry, where=_inside(_inside(where, name), str(key))
                )


def _in_words(error: Exception, where: object) -> InputError:
    """Jsonargparse nests ``Parser key "a": ... Parser key "b":``; join the keys and keep the innermost complaint."""
    text = str(error)
    keys = ".".join(re.findall(r'(?:Parser )?[Kk]ey "([^"]+)"', text))
    found = re.findall(r"Expected an? (.+?)\. Got value: (.+)", text)
    if found:
        wanted = re.sub(r"<class '([\w.]+)'>", r"\1", found[-1][0]).replace("typing.Literal", "one of ")
        return InputError(
            _inside(where, keys), expected=wanted, got=f"'{found[-1][1].strip()}'", remedy="change the value"
        )
    return InputError(
        _inside(where, keys or "settings"),
        expected="valid settings",
        got=" ".join(text.split()),
        remedy="see --help",
    )
