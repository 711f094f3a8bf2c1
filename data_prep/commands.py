"""Which commands make data that are missing, in words."""

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from data_prep.source import SOURCES, Source, read_source, resolve, source_names

DEMO = "demo"
"""Folder of the demo's data, which a command of their own draws."""
PSEUDO_WORDS = "pseudo_words"
"""Folder of pseudo-words and the pictures they were found for, which another command makes."""
OWN_DATA = "own_data"
"""Folder of tables and sets of one's own pictures, which another command makes."""


def sets_by_source(names: Sequence[str]) -> Iterator[list[str]]:
    """``source/set`` names of one source at a time; the source alone where they are all of it."""
    for source in dict.fromkeys(name.partition("/")[0] for name in names):
        own = list(dict.fromkeys(name for name in names if name.startswith(f"{source}/")))
        yield [source] if set(own) == _sets(source) else own


def preparing(names: Sequence[str], data_root: Path) -> list[str]:
    """The commands that make sets, each a line; the first names all sets of sources, or the group that they are.

    Args:
        names: ``source/set``, e.g. the tables of a recipe without their suffixes; the demo's and one's own among them.
        data_root: where they are to lie.
    """
    root = shlex.quote(str(data_root))
    known = [name for name in names if (SOURCES / f"{name.partition('/')[0]}.yaml").is_file()]
    lines = []
    sources = {source: read_source(source) for source in dict.fromkeys(name.partition("/")[0] for name in known)}
    kept = [name for name in known if _is_kept(sources[name.partition("/")[0]], name)]
    for part, more in (([name for name in known if name not in kept], ""), (kept, " --source DIR")):
        if part:
            group = next((group for group in source_names() if _sets(group) == set(part)), None)
            asked = [group] if group is not None else [name for names in sets_by_source(part) for name in names]
            lines.append(f"python data_prep/prepare.py {' '.join(asked)} --data-root {root}{more}")
    if any(name.startswith(f"{DEMO}/") for name in names):
        lines.append(f"python data_prep/demo.py --data-root {root}")
    for name in names:
        if name.startswith(f"{PSEUDO_WORDS}/"):
            recipe = f"--config {name.partition('/')[2]}.yaml --pictures DIR --phrases FILE"
            lines.append(f"python scripts/make_pseudo_words.py {recipe} --data-root {root}")
    if any(name.startswith(f"{OWN_DATA}/") for name in names):
        read = "--pictures DIR --csv FILE --picture-column NAME --text-column NAME"
        lines.append(f"python data_prep/own_data.py {read} --output {root}")
    made = (f"{DEMO}/", f"{PSEUDO_WORDS}/", f"{OWN_DATA}/")
    own = [name for name in names if name not in known and not name.startswith(made)]
    if own:
        lines.append(f"{', '.join(own)}: of no source; a table of your own is written as docs/data.md says")
    return lines


def _is_kept(source: Source, name: str) -> bool:
    """Whether a set, or the first of its source, is of a folder that people keep, which is on no Hub."""
    row = source.sets.get(name.partition("/")[2]) or next(iter(source.sets.values()), None)
    return row is not None and bool(row.folders)


def _sets(name: str) -> set[str]:
    """All sets of a source or group, each as ``source/set``."""
    if not read_source(name).includes and not read_source(name).sets:
        return set()
    return {f"{source.name}/{row}" for source in resolve(name) for row in source.sets}
