"""Miniatures of the visual document sets: configurations ``queries``, ``qrels`` and ``corpus``, pages in the rows."""

from collections.abc import Callable
from typing import Any, TypeAlias

import pyarrow as pa

from data_prep.miniatures.studio import Studio, encoded
from data_prep.source import SourceSet

PAGES = 7
QUERIES = 5
LANGUAGES = ("english", "french", "german", "spanish")
QUESTION = "How much did sales grow in {year}?"
LONG = "a page whose name goes on and on until no file system would take it with all that is written beside it"
Row: TypeAlias = dict[str, Any]


def vidore(row: SourceSet, studio: Studio) -> None:
    """Ids are numbers; of ViDoRe-V2 queries have languages, and relevance is graded in the set labelled by humans."""
    queries = [{"query-id": i, "query": QUESTION.format(year=2023 - i)} for i in range(QUERIES)]
    if row.repo.endswith("_v2"):
        queries = [query | {"language": LANGUAGES[i % 4]} for i, query in enumerate(queries)]
    # the pages of the first -page sets are counted from another number than those of the mended ones
    shift = 1 if row.repo in ("VLM2Vec/ViDoSeek-page", "VLM2Vec/MMLongBench") else 0
    graded = "human_labeled" in row.repo
    judgements = [
        {"query-id": i, "corpus-id": (i + 3 * j + shift) % PAGES, "score": 2 - j if graded else 1}
        for i in range(QUERIES)
        for j in range(2 if graded else 1)
    ]
    # one of no relevance, and one given twice
    judgements += [{"query-id": 0, "corpus-id": 5, "score": 0}, judgements[1] | {"score": 1}]
    pages = [{"corpus-id": i, "image": _page(f"{row.repo} {i}", ".png")} for i in range(PAGES)]
    _publish(row, studio, queries, judgements, pages)


def visrag(row: SourceSet, studio: Studio) -> None:
    """Ids are names of files, JPEG and PNG, two of them alike for longer than names of files are kept."""
    names = [f"{row.name} {i}.jpg" for i in range(PAGES - 3)] + [f"{LONG}-0.png", f"{LONG}-1.png", "p. 5.jpeg"]
    queries = [{"query-id": f"{name}-query-0", "query": QUESTION.format(year=2023 - i)} for i, name in enumerate(names)]
    judgements = [
        {"query-id": query["query-id"], "corpus-id": name, "score": 1}
        for query, name in zip(queries, reversed(names), strict=True)
    ]
    pages = [{"corpus-id": name, "image": _page(name, name[name.rindex(".") :])} for name in names]
    _publish(row, studio, queries, judgements, pages)


def _page(seed: str, suffix: str) -> Row:
    return {"bytes": encoded(seed, suffix, (84, 112)), "path": f"page{suffix}"}


def _publish(row: SourceSet, studio: Studio, queries: list[Row], judgements: list[Row], pages: list[Row]) -> None:
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schemas = {"corpus": pa.schema([("corpus-id", pa.array([pages[0]["corpus-id"]]).type), ("image", image)])}
    for part, rows in {"queries": queries, "qrels": judgements, "corpus": pages}.items():
        path = studio.repo(row.repo) / part / f"{row.split}-00000-of-00001.parquet"
        studio.parquet(path, rows, schemas.get(part))


MINIATURES: dict[str, Callable[[SourceSet, Studio], None]] = {"vidore": vidore, "visrag": visrag}
