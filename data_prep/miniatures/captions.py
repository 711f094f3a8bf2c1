"""Miniatures of captions alone: a column of texts."""

from collections.abc import Callable

from data_prep.miniatures.studio import ROWS, Studio
from data_prep.source import SourceSet

CAPTIONS = (
    "A red dress on a wooden table",
    "<PERSON> holds a cup of tea near the window",
    "running quickly",
    "the dog on the beach with two cats, 4k, sharp focus",
    "a hat for $ 5",
)


def masked_captions(row: SourceSet, studio: Studio) -> None:
    """Captions: whole sentences, a name, one without a noun, a prompt, one with a dollar."""
    rows = [{row.options.get("column", "text"): f"{CAPTIONS[i % len(CAPTIONS)]} no. {i}"} for i in range(ROWS)]
    studio.parquet(studio.repo(row.repo) / "data" / "train-00000-of-00001.parquet", rows)


MINIATURES: dict[str, Callable[[SourceSet, Studio], None]] = {"masked_captions": masked_captions}
"""What draws the repository of a set, by the name of its converter."""
