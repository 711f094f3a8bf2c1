"""Miniatures of the training sets of document pages: rows in Parquet, with the pictures of their pages inside."""

from collections.abc import Callable
from typing import Any

import pyarrow as pa

from data_prep.miniatures.studio import ROWS, Studio, encoded
from data_prep.source import SourceSet

PAGE = (84, 112)
PICTURE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
"""A picture in a Parquet column."""
TEXT = pa.string()
TURN = pa.struct([("user", TEXT), ("assistant", TEXT), ("source", TEXT)])


def page(name: str) -> dict[str, Any]:
    """A page as a column of pictures holds it."""
    return {"bytes": encoded(name, ".png", PAGE), "path": f"{name}.png"}


def colpali_pairs(row: SourceSet, studio: Studio) -> None:
    """Questions about pages and their answers."""
    rows = [
        {
            "image": page(f"colpali_{i}"), "image_filename": f"images/2201.{i:05d}_0.jpg", "query": f"What is sum {i}?",
            "answer": f"['{i}']", "source": ("arxiv_qa", "docvqa", "pdf")[i % 3], "options": "['-']", "page": "",
            "model": "gpt4V", "prompt": "a long prompt that is not used", "answer_type": "mcq",
        }
        for i in range(ROWS)
    ]  # fmt: skip
    texts = [(name, TEXT) for name in rows[0] if name != "image"]
    schema = pa.schema([("image", PICTURE), *texts])
    studio.parquet(studio.repo(row.repo) / "data" / f"{row.split}-00000-of-00001.parquet", rows, schema)


def visrag_pairs(row: SourceSet, studio: Studio) -> None:
    """Questions and their pages: a row of every source that has prompts, one of a source without."""
    sources = [*row.options["query_prompts"], "Elsewhere", "PlotQA"]
    rows = [
        {"query": f"Which bar is {i}?", "image": page(f"visrag_{i}"), "source": source}
        for i, source in enumerate(sources)
    ]
    schema = pa.schema([("query", TEXT), ("image", PICTURE), ("source", TEXT)])
    studio.parquet(studio.repo(row.repo) / "data" / f"{row.split}-00000-of-00001.parquet", rows, schema)


def docmatix_pairs(row: SourceSet, studio: Studio) -> None:
    """Documents of one to three pages with a few questions each; the card says where each configuration lies."""
    repo = studio.repo(row.repo)
    rows = [
        {
            "images": [page(f"docmatix_{i}_{number}") for number in range(1 + i % 3)],
            "texts": [
                {"user": f"Question {turn} of document {i}?", "assistant": f"Answer {turn}.", "source": "PDFA key: 1"}
                for turn in range(1 + i % 4)
            ],
        }
        for i in range(ROWS)
    ]
    schema = pa.schema([("images", pa.list_(PICTURE)), ("texts", pa.list_(TURN))])
    studio.parquet(repo / "data" / f"{row.split}-00000-of-00001.parquet", rows, schema)
    lines = ["---", "configs:"]
    for config, folder in (("images", "data"), ("pdf", "pdf")):
        lines += [f"- config_name: {config}", "  data_files:", "  - split: train", f"    path: {folder}/train-*"]
    studio.write(repo / "README.md", "\n".join([*lines, "---", ""]).encode())


def pixmo_pairs(row: SourceSet, studio: Studio) -> None:
    """Questions, and the pictures of documents as files."""
    rows = [
        {
            "query_id": str(i), "query_text": f"Which chart shows {i}?", "positive_document_ids": [f"doc_{i}"],
            "negative_document_ids": [f"doc_{(i + 1) % ROWS}"],
        }
        for i in range(ROWS)
    ]  # fmt: skip
    for i in range(ROWS):
        studio.picture(studio.repo(str(row.media[0].repo)) / f"doc_{i}.png", size=PAGE)
    studio.parquet(studio.repo(row.repo) / "data" / f"{row.split}-00000-of-00001.parquet", rows)


MINIATURES: dict[str, Callable[[SourceSet, Studio], None]] = {
    "colpali_pairs": colpali_pairs,
    "visrag_pairs": visrag_pairs,
    "docmatix_pairs": docmatix_pairs,
    "pixmo_pairs": pixmo_pairs,
}
"""What draws the repository of a set, by the name of its converter."""
