"""Miniatures of the image sets of MMEB: rows of ``MMEB_Test_Instruct``, pictures in the archive of MMEB-V2."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa

from data_prep.miniatures.image_ranked_texts import FIRST
from data_prep.miniatures.studio import Studio
from data_prep.source import SourceSet, read_source

QUERIES = 6
TEXTS = pa.list_(pa.string())
SCHEMA = pa.schema(
    [
        ("qry_inst", pa.string()),
        ("qry_text", pa.string()),
        ("qry_img_path", pa.string()),
        ("tgt_inst", pa.string()),
        ("tgt_text", TEXTS),
        ("tgt_img_path", TEXTS),
    ]
)
Row: TypeAlias = dict[str, Any]


def image_set(row: SourceSet, studio: Studio) -> None:
    """The rows of a set, and once the archive with the pictures of all sets."""
    studio.parquet(studio.repo(row.repo) / f"{row.config}/{row.split}-00000-of-00001.parquet", records(row), SCHEMA)
    archive = studio.repo(row.media[0].repo or row.repo) / row.media[0].files[0]
    if not archive.exists():
        with tempfile.TemporaryDirectory() as folder:
            for other in read_source("mmeb_eval").sets.values():
                for name in pictures(records(other)):
                    studio.picture(Path(folder) / row.media[0].strip / name, seed=name)
            studio.archive(archive, Path(folder))


def records(row: SourceSet) -> list[Row]:
    """The rows of a set; the first has the published texts, the pictures are drawn."""
    text, target = FIRST[row.name]
    asks = row.converter != "image_t2i"
    answers = {"image_t2i": _pictures, "image_i2i_vg": _pictures}.get(row.converter, _texts)
    return [
        {
            "qry_inst": _words(row.options["query"]),
            "qry_text": _other(text, i),
            "qry_img_path": f"{row.config}/query_{i}.jpg" if asks else "",
            "tgt_inst": _words(row.options.get("target", "")),
            **answers(row, target, i),
        }
        for i in range(QUERIES)
    ]


def pictures(rows: list[Row]) -> list[str]:
    """Paths of all pictures that rows name, each once."""
    named = (name for row in rows for name in (row["qry_img_path"], *row["tgt_img_path"]))
    return list(dict.fromkeys(name for name in named if name))


def _texts(row: SourceSet, first: str, query: int) -> Row:
    """Labels, answers or captions; the second query has the text of its right answer twice, the third a wrong one."""
    labels = [first, "No"] if row.name == "HatefulMemes" else [_other(first, i) for i in range(QUERIES)]
    texts = _from(labels, query)
    if row.converter != "image_cls" and query in (1, 2):
        texts.append(texts[query - 1])
    return {"tgt_text": texts, "tgt_img_path": [""] * len(texts)}


def _pictures(row: SourceSet, first: str, query: int) -> Row:
    """Pictures: of VG and OVEN two captions each, else one, which later queries change."""
    captions = _from([_other(first, i) for i in range(QUERIES)], query)
    shared = 2 if row.converter == "image_i2i_vg" and first else 1
    paths = _from([f"{row.config}/target_{i // shared}.jpg" for i in range(QUERIES)], query)
    if first and shared == 1 and query > 2:
        captions[1:] = [_other(caption, 9) for caption in captions[1:]]
    return {"tgt_text": captions, "tgt_img_path": paths}


def _words(prompt: str) -> str:
    """The instruction of a published prompt."""
    return prompt.removesuffix(" {text}")


def _other(text: str, number: int) -> str:
    """A text like the first one; an absent one stays so."""
    if not text or number == 0:
        return text
    end = "" if text[-1].isalnum() else text[-1]
    return f"{text.removesuffix(end) if end else text} {number}{end}"


def _from(values: list[str], start: int) -> list[str]:
    """All values, those from ``start`` on first."""
    start %= len(values)
    return values[start:] + values[:start]


MINIATURES: dict[str, Callable[[SourceSet, Studio], None]] = dict.fromkeys(
    ("image_cls", "image_qa", "image_i2t", "image_t2i", "image_i2i_vg"), image_set
)
