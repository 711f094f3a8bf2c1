"""MMEB rows (arXiv:2410.05160): query, positive and at most one negative, each a text and perhaps a picture.

Instructions stand in the texts, and ``<|image_1|>`` where the picture is read; both stay where they are, so items are
verbatim. A text may have the word without a picture, as WebQA has; then its layout says where. A negative may be a
picture without words, as VisDial has. Absent texts and paths are written as empty strings.
"""

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from data_prep.converters.fields import maybe_text
from data_prep.converters.image_pairs import TOKEN
from data_prep.converters.published import stray
from data_prep.formats import Format, Holds, Record, Shape
from data_prep.formats.inputs import Reading
from data_prep.formats.items import parts_of_tagged, tagged_of_item
from data_prep.formats.outputs import Writing, whole_files
from mmembed.errors import InputError
from mmembed.items import Image, Item, Negative, Pair

COLUMNS = ("qry", "qry_image_path", "pos_text", "pos_image_path", "neg_text", "neg_image_path")
LAYOUTS = ("{image_token}{text}", "{text}{image_token}", "{instruction}{image_token}{text}")
"""How a text has the word for a picture that is not there."""
_SHAPE = Shape(kinds=("text", "image"), images=1, tagged=True, verbatim=True, layouts=LAYOUTS)
_GROUP_ROWS = 512


def read(reading: Reading) -> Iterator[Pair]:
    """The pairs of MMEB rows."""

    def item(row: Record, side: tuple[str, str], *, wordless: bool = False) -> Item | None:
        words, path = (maybe_text(row, column) for column in side)
        if not words and not path:
            return None
        if not path:
            return stray(words, TOKEN, side[0]) if TOKEN in words else Item((words,))
        image = Image(reading.media.find(path, side[1]))
        if not words and wordless:
            return Item((image,))
        return Item(parts_of_tagged(words, {TOKEN: [image]}, {TOKEN: side[1]}))

    def make(row: Record) -> Pair:
        query, positive = item(row, COLUMNS[:2]), item(row, COLUMNS[2:4])
        if query is None or positive is None:
            where = COLUMNS[0] if query is None else COLUMNS[2]
            raise InputError(where, expected="a text or a picture", got="neither", remedy="leave the row out")
        negative = item(row, COLUMNS[4:], wordless=True)
        return Pair(query, (positive,), () if negative is None else (Negative(negative),))

    return reading.pairs(make, COLUMNS, COLUMNS[:4])


def write(writing: Writing) -> None:
    """Write MMEB rows as JSON lines or Parquet."""

    def side(item: Item | None, where: str) -> tuple[str, str]:
        if item is None:
            return "", ""
        if item.layout is not None:
            words = tagged_of_item(item, {"image": TOKEN}, where)
            return _stray(item, words, where), ""
        path = next((writing.media.name(medium.source, f"{where}.image") for medium in item.media), "")
        words = tagged_of_item(item, {"image": TOKEN}, where)
        return "" if where.startswith("negatives") and words == TOKEN else words, path

    def make(pair: Pair) -> Record:
        negative = pair.negatives[0].item if pair.negatives else None
        sides = (
            side(pair.query, "query"),
            side(pair.positives[0], "positives[0]"),
            side(negative, "negatives[0].item"),
        )
        return dict(zip(COLUMNS, (value for pair in sides for value in pair), strict=True))

    if writing.path.suffix == ".parquet":
        _write_parquet(writing, writing.rows(make))
    else:
        writing.write_lines(writing.rows(make))


def _stray(item: Item, words: str, where: str) -> str:
    """A text with the word for a picture that is not there."""
    told = "" if item.instruction is None else item.instruction
    text = str(item.layout).format(image_token=TOKEN, instruction=told, text=words)
    if item.media or stray(text, TOKEN, where) != item:
        remedy = "say --drop layout to leave it out"
        raise InputError(f"{where}.layout", expected="one text, and the word for a picture", got=item, remedy=remedy)
    return text


def _write_parquet(writing: Writing, rows: Iterator[Record]) -> None:
    schema = pa.schema([(column, pa.string()) for column in COLUMNS])
    with whole_files(writing.path) as (part,), pq.ParquetWriter(part, schema) as writer:
        group = list[Record]()
        for row in rows:
            group.append(row)
            if len(group) == _GROUP_ROWS:
                writer.write_table(pa.Table.from_pylist(group, schema=schema))
                group.clear()
        writer.write_table(pa.Table.from_pylist(group, schema=schema))


FORMAT = Format(
    "MMEB rows of VLM2Vec: qry, qry_image_path, pos_text, pos_image_path, neg_text, neg_image_path (.jsonl, .parquet)",
    Holds(query=_SHAPE, target=_SHAPE, positives=1, negatives=1),
    read,
    write,
    suffixes=(".jsonl", ".parquet"),
)
"""MMEB's rows."""
