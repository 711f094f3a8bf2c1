"""Datasets as sentence-transformers trains on them: columns anchor, positive and negatives, in this order.

A value is a text, or an object of text, image and video. All values of a column have the same of these, for a column
of Arrow would fill in nulls, which the library takes for media. A column ``label`` holds a teacher's scores: a list,
of the positive and then the negatives, or a number where there are none.
"""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from data_prep.formats import Format, Holds, Record, Shape
from data_prep.formats.columns import KINDS, cut, named_medium, placed_items, survey_of
from data_prep.formats.dataset_folders import write_dataset
from data_prep.formats.inputs import Reading, check_row
from data_prep.formats.outputs import Writing
from mmembed.data.values import kind_of
from mmembed.errors import InputError
from mmembed.items import Image, Item, Negative, Pair, Part, Video

LABELS = ("label", "labels", "score", "scores")
"""Columns that the library takes for scores, whatever their place."""
_SHAPE = Shape(kinds=("text", "image", "video"), images=None)


def read(reading: Reading) -> Iterator[Pair]:
    """The pairs of a dataset."""
    asked: tuple[str, ...] | None = reading.options["columns"]

    def make(row: Record) -> Pair:
        columns = asked or columns_of(row)
        label = next((name for name in LABELS if row.get(name) is not None), None)
        reading.refuse_unknown(row, (*columns, *([label] if label else [])))
        check_row(row, columns)
        query, positive, *wrong = (_item(reading, row[name], name) for name in columns)
        scores = () if label is None else _scores(row[label], label, 1 + len(wrong))
        return Pair(query, (positive,), tuple(map(Negative, wrong)), scores)

    return reading.checked_pairs(make)


def columns_of(row: Record) -> tuple[str, ...]:
    """The columns of texts and media, in order, where they have the names of the documentation.

    Raises:
        InputError: there is no anchor or no positive.
    """
    numbered = sorted(
        (int(name.removeprefix("negative_")), name)
        for name in row
        if name.startswith("negative_") and name.removeprefix("negative_").isdigit()
    )
    wrong = [name for _, name in numbered] or [name for name in ("negative",) if name in row]
    for name in ("anchor", "positive"):
        if name not in row:
            remedy = "name the columns of query, positive and negatives with --columns"
            raise InputError(name, expected="this column", got=f"columns {', '.join(row)}", remedy=remedy)
    return ("anchor", "positive", *wrong)


def write(writing: Writing) -> None:
    """Write a dataset: a folder, JSON lines or Parquet."""
    embed, is_lines = writing.options["embed_media"], writing.path.suffix == ".jsonl"
    if embed and is_lines:
        remedy = "write a folder or .parquet, or leave --embed-media away"
        raise InputError("--embed-media", expected="an output that holds bytes", got="JSON lines", remedy=remedy)
    survey = survey_of(writing)
    most = writing.options["negatives"]

    def value(item: Item, name: str, where: str) -> Any:
        column = survey.columns[name]
        if column.plain:
            return item.text
        made: dict[str, Any] = {"text": item.text}
        for medium in item.media:
            if embed and isinstance(medium, Image):
                made.setdefault("image", []).append(_embedded(medium, where))
            else:
                named = writing.media.name(medium.source, f"{where}.{kind_of(medium)}")
                made.setdefault(kind_of(medium), []).append(named)
        made = {kind: made[kind] for kind in column.kinds}
        alone = ("video",) if column.several else ("video", "image")
        return made | {kind: made[kind][0] for kind in alone if kind in made}

    def make(pair: Pair) -> Record:
        if most is not None and len(pair.negatives) > most:
            writing.counts[f"negatives after the first {most} left out"] += 1
        placed = placed_items(cut(pair, most))
        row = {name: value(item, name, where) for name, where, item in placed}
        scores = cut(pair, most).teacher_scores
        return row | ({"label": list(scores) if len(scores) > 1 else scores[0]} if scores else {})

    rows = writing.rows(make)
    if is_lines:
        writing.write_lines(rows)
    else:
        write_dataset(writing.path, rows, survey.features(embed=embed))


def _embedded(medium: Any, where: str) -> dict[str, Any]:
    if isinstance(medium.source, bytes):
        return {"bytes": medium.source, "path": None}
    try:
        return {"bytes": Path(medium.source).read_bytes(), "path": None}
    except OSError as error:
        raise InputError(where, expected="a readable file", got=error, remedy="check the media") from error


def _item(reading: Reading, value: Any, where: str) -> Item:
    if isinstance(value, str):
        value = {named_medium(value, reading.media.folder) or "text": value}
    if isinstance(value, Mapping) and value.keys() == {"bytes", "path"}:
        value = {"image": value}
    if not isinstance(value, Mapping):
        remedy = "write a text or an object of text, image and video"
        raise InputError(where, expected="a text or an object", got=f"{value!r:.60}", remedy=remedy)
    for name in value:
        if name not in KINDS:
            remedy = "leave the column out, or write text, image and video"
            raise InputError(f"{where}.{name}", expected="text, image or video", got=f"'{name}'", remedy=remedy)
    parts: list[Part] = []
    if value.get("video") is not None:
        parts.append(Video(reading.media.find(_string(value["video"], f"{where}.video"), f"{where}.video")))
    if (images := value.get("image")) is not None:
        several = enumerate(images) if isinstance(images, list) else [(None, images)]
        for i, image in several:
            place = f"{where}.image" if i is None else f"{where}.image[{i}]"
            parts.append(Image(_picture(reading, image, place)))
    if value.get("text") is not None and (text := _string(value["text"], f"{where}.text")):
        parts.append(text)
    if not parts:
        raise InputError(where, expected="a text or a medium", got="nothing", remedy="leave the row out")
    return Item(tuple(parts), verbatim=False)


def _picture(reading: Reading, value: Any, where: str) -> str:
    """The path of a picture: of its name, or of the file that is made of its bytes."""
    if isinstance(value, Mapping) and value.keys() <= {"bytes", "path"}:
        value = value["bytes"] if value.get("bytes") is not None else value.get("path")
    if isinstance(value, bytes):
        return reading.media.keep(value, where)
    return reading.media.find(_string(value, where), where)


def _string(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise InputError(where, expected="a text", got=f"{value!r:.60}", remedy="mend the row")
    return value


def _scores(value: Any, where: str, count: int) -> tuple[float, ...]:
    scores = value if isinstance(value, list) else [value]
    for score in scores:
        if isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score):
            raise InputError(where, expected="finite numbers", got=f"{value!r:.60}", remedy="mend the row")
    if len(scores) != count:
        expected = f"{count} scores, of the positive and then the negatives"
        remedy = f"mend the row, or say --drop {where}"
        raise InputError(where, expected=expected, got=len(scores), remedy=remedy)
    return tuple(map(float, scores))


FORMAT = Format(
    "sentence-transformers datasets: anchor, positive, negative_1 and so on, label "
    "(.jsonl, .parquet, or a folder of datasets.save_to_disk)",
    Holds(_SHAPE, _SHAPE, positives=1, fields=frozenset({"teacher_scores"})),
    read,
    write,
    reading=("columns",),
    writing=("negatives", "embed_media"),
    suffixes=(".jsonl", ".parquet", ""),
)
"""Datasets of sentence-transformers."""
