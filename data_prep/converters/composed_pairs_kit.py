"""What converters of composed training rows share: pictures by name, one of several changes, and the pairs."""

import ast
import os
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from data_prep.converters import Media, Record
from data_prep.converters.fields import PICTURES, REMEDY, identifier, text, texts
from data_prep.source import SourceSet
from mmembed.errors import InputError
from mmembed.items import Item, Negative, Pair


def several_of(rows: Iterator[Record], make: Callable[[Record], Sequence[Pair]]) -> Iterator[Pair | InputError]:
    """The pairs that ``make`` gives of each row, in order; or the error that says of which row there are none."""
    for number, row in enumerate(rows):
        try:
            yield from make(row)
        except InputError as error:
            yield error.within(f"row {number}")


def named(media: Media, name: str, where: str, suffixes: Sequence[str] = PICTURES) -> Path:
    """The file of a name that lacks its suffix.

    Raises:
        InputError: the path leaves the media, or there is none under any of the suffixes.
    """
    found = (media.look(f"{name}{suffix}", where) for suffix in suffixes)
    return next((path for path in found if path), None) or media.find(f"{name}{suffixes[0]}", where)


@dataclass(frozen=True)
class Named:
    """Pictures below a folder by the names of their files, without suffixes."""

    folder: Path
    _files: dict[str, list[Path]] = field(default_factory=dict, repr=False)

    def find(self, name: str, where: str) -> Path:
        """The picture of a name.

        Raises:
            InputError: there is none, or several.
        """
        if not self._files:
            for folder, _, files in os.walk(self.folder, followlinks=True):
                for path in (Path(folder, file) for file in sorted(files)):
                    if path.suffix.lower() in PICTURES:
                        self._files.setdefault(path.stem, []).append(path)
        found = self._files.get(name, [])
        if len(found) != 1:
            got = f"'{name}' in {', '.join(map(str, found))}" if found else f"no '{name}' below {self.folder}"
            remedy = "keep one of them" if found else "download the media again, or unpack their archive"
            raise InputError(where, expected="one picture of that name", got=got, remedy=remedy)
        return found[0]


def composed(
    row: Record,
    key: str | None,
    shown: Path,
    change: str,
    wanted: Path,
    name: str,
    negatives: tuple[Negative, ...] = (),
) -> Pair:
    """A picture and a change that find a picture.

    Args:
        row: names the query in the column ``key``, where there is one.
        key: see ``row``.
        shown: the picture of the query.
        change: of it.
        wanted: what it becomes.
        name: of the target.
        negatives: targets that are wrong.
    """
    query = Item.of({"image": str(shown), "text": change})
    query_id = "" if key is None else identifier(row, key)
    return Pair(query, (Item.of({"image": str(wanted)}),), negatives, query_id=query_id, target_ids=(name,))


def numbered(row: Record, column: str) -> tuple[str, str]:
    """The number and the path of a picture of LaSCo."""
    value = row.get(column)
    if not isinstance(value, list) or len(value) != 2:
        raise InputError(column, expected="a number and a path", got=f"{value!r:.80}", remedy=REMEDY)
    number, path = dict(zip((f"{column}[0]", f"{column}[1]"), value, strict=True)), f"{column}[1]"
    return identifier(number, f"{column}[0]"), text(number, path)


def listed(value: str, where: str) -> list[str]:
    """The changes of a CSV field: a text, or several written as Python writes a list of texts."""
    if not value.startswith("["):
        return [value]
    try:
        found = ast.literal_eval(value)
    except (ValueError, SyntaxError) as error:
        raise InputError(where, expected="a text or a list of texts", got=f"{value!r:.80}", remedy=REMEDY) from error
    return texts({where: found}, where)


def chosen(changes: Sequence[str], number: int, row_set: SourceSet) -> list[str]:
    """Of several changes all, or the one that the row's number draws: option ``texts``, ``all`` or ``one``.

    The published trainings draw another each epoch.
    """
    kind = row_set.options["texts"]
    if kind not in ("one", "all"):
        raise InputError("options.texts", expected="one or all", got=f"'{kind}'", remedy="correct the source")
    return list(changes) if kind == "all" else [random.Random(f"row {number}").choice(changes)]
