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
    missing = [table for table in tables_of(recipe) if not (data_root / table).is_file()]
    if missing:
        lines = preparing([str(Path(table).with_suffix("")) for table in missing], data_root)
        shown = ", ".join(missing[:SHOWN]) + (f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else "")
        raise InputError(
            data_root, expected="prepared tables", got=f"no {shown}",
            remedy="\n  ".join(["make them, or try the recipe small with --miniature:", *lines]),
        )  # fmt: skip
    found = {} if parts else {name: words for name in sets_of(recipe) if (words := why_not_whole(data_root, name))}
    if found:
        shown = "; ".join(f"{name}: {words}" for name, words in list(found.items())[:SHOWN])
        more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        lines = preparing(list(found), data_root)
        raise InputError(
            data_root, expected="whole tables", got=f"{shown}{more}",
            remedy="\n  ".join(["say --parts to train on what is there, or prepare them whole:", *lines]),
        )  # fmt: skip
