"""Miniatures of MMEB-train: rows in Parquet by subset and split, pictures in an archive of the subset."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa

from data_prep.miniatures.studio import ROWS, Studio
from data_prep.source import SourceSet
from mmembed.settings import load_yaml

COLUMNS = ("qry", "qry_image_path", "pos_text", "pos_image_path", "neg_text", "neg_image_path")
"""Columns of MMEB-train; an absent picture is an empty path."""
WORDS = ("red cube", "blue ball", "green cone", "white page", "small dog", "tall tree")


@cache
def looks() -> dict[str, dict[str, Any]]:
    """How the rows of each subset look."""
    read: dict[str, dict[str, Any]] = load_yaml(Path(__file__).with_name("mmeb_train.yaml"))
    return read


def mmeb_pairs(row: SourceSet, studio: Studio) -> None:
    """A subset: its rows and the archive of its pictures, whose paths begin with the subset."""
    subset, repo = str(row.config), studio.repo(row.repo)
    look, packed = looks()[subset], studio.root / ".drawn" / row.repo / subset
    query = look.get("diverse", look["query"]) if row.split == "diverse_instruction" else look["query"]

    def picture(side: str, number: int) -> str:
        if side not in look["pictures"]:
            return ""
        name = f"{subset}/Train/{subset}_{side}_{number}.jpg"
        studio.picture(packed / name)
        return f"images/{name}"

    rows = []
    for i in range(ROWS):
        words = f"{WORDS[i % len(WORDS)]} {i}"
        texts = [query.format(words), look["target"].format(words), look.get("negative", "")]
        paths = [picture(side, i) for side in ("query", "target", "negative")]
        values = [value for pair in zip(texts, paths, strict=True) for value in pair]
        rows.append(dict(zip(COLUMNS, values, strict=True)))
    schema = pa.schema([(name, pa.string()) for name in COLUMNS])
    studio.parquet(repo / subset / f"{row.split}-00000-of-00001.parquet", rows, schema)
    studio.archive(repo / row.media[0].files[0], packed)


MINIATURES: dict[str, Callable[[SourceSet, Studio], None]] = {"mmeb_pairs": mmeb_pairs}
"""What draws the repository of a set, by the name of its converter."""
