"""The tables that a recipe draws from: which they are, and that they are there."""

from pathlib import Path

from data_prep.commands import preparing
from data_prep.engine.manifest import why_not_whole
from mmembed.errors import InputError
from mmembed.recipe import Recipe

SHOWN = 3


def tables_of(recipe: Recipe) -> list[str]:
    """The tables of the sources that have a weight, each once, in order."""
    drawn = [source for stage in recipe.stages.values() for source in stage.mixture.values() if source.weight]
    return list(dict.fromkeys(source.table for source in drawn))


def sets_of(recipe: Recipe) -> list[str]:
    """The same as ``source/set``."""
    return [str(Path(table).with_suffix("")) for table in tables_of(recipe)]


def check_data(recipe: Recipe, data_root: Path, *, parts: bool = False) -> None:
    """Refuse a recipe whose tables are not there, or not whole, before any weight is loaded.

    Args:
        recipe: draws from the tables.
        data_root: where they lie.
        parts: a table that is there will do, though its source is prepared in part, or has changed since.

    Raises:
        InputError: names the tables, and says which commands make them.
    """
    missing = {name: table for name, table in zip(sets_of(recipe), tables_of(recipe), strict=True)
               if not (data_root / table).is_file()}  # fmt: skip
    if missing:
        what = "make them, or try the recipe small with --miniature:"
        raise _refused(data_root, "prepared tables", f"no {_listed(list(missing.values()), ', ')}", what, list(missing))
    found = {} if parts else {name: words for name in sets_of(recipe) if (words := why_not_whole(data_root, name))}
    if found:
        what = "say --parts to train on what is there, or prepare them whole:"
        said = _listed([f"{name}: {words}" for name, words in found.items()], "; ")
        raise _refused(data_root, "whole tables", said, what, list(found))


def _refused(data_root: Path, expected: str, got: str, what: str, sets: list[str]) -> InputError:
    """What to say of sets that will not do, and below it the commands that make them."""
    return InputError(data_root, expected=expected, got=got, remedy="\n  ".join([what, *preparing(sets, data_root)]))


def _listed(things: list[str], separator: str) -> str:
    """The first of them, and how many more."""
    more = f" and {len(things) - SHOWN} more" if len(things) > SHOWN else ""
    return separator.join(things[:SHOWN]) + more
