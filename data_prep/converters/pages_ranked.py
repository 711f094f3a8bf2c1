"""The visual document sets of MMEB-V2 (arXiv:2507.04590): every query ranks all pages of its set.

A repository holds ``queries``, ``qrels`` and ``corpus`` as configurations, pages inside their rows. Pages become files
as the published code writes them, or with the publisher's own bytes: the set's option ``pages``. Its option
``language`` takes the queries of one language.
"""

import hashlib
import io
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias

import PIL.Image
import PIL.ImageOps

from data_prep.converters import Converter, Media, Ranked, Record
from data_prep.converters.fields import identifier, in_row, picture, text
from data_prep.source import SourceSet
from mmembed.errors import InputError, nearest
from mmembed.files import whole_file
from mmembed.items import Item

COLUMNS = {
    "queries": ("query-id", "query"),
    "qrels": ("query-id", "corpus-id", "score"),
    "corpus": ("corpus-id", "image"),
}
NOT_RELEVANT = "judgements of no relevance, which are left out"
TWICE = "judgements given twice, of which the higher counts"
SAME_ID = "queries with the id of an earlier one, which are numbered"
SAME_PAGE = "pages with the id of an earlier one, which are left out"
MADE = ("published", "original")

FileName: TypeAlias = Callable[[str], str]


def vidore_name(page: str) -> str:
    """The file of a page of ViDoRe, ViDoSeek and MMLongBench."""
    return f"{page}.png"


def visrag_name(page: str) -> str:
    """The file of a page of VisRAG: ids are names of files, some too long for one; the suffix says the format."""
    path = Path(page)
    digest = hashlib.md5(page.encode(), usedforsecurity=False).hexdigest()
    return f"{path.stem[:50]}_{digest[:8]}{path.suffix}"


def page_set(file_name: FileName, parts: Mapping[str, Iterator[Record]], row: SourceSet, media: Media) -> Ranked:
    """The retrieval set of queries, judgements and pages; pages that queries name come first, as in the published code.

    Raises:
        InputError: a query without a relevant page, a judgement of a page that is not there, or a page that cannot be
            written: part, row and field.
    """
    made, language = Ranked(whole=True), row.options.get("language")
    grades = _grades(parts["qrels"], made)
    pages = _pages(parts["corpus"], _Binder(file_name, _kind(row), media), made)
    for number, record in enumerate(parts["queries"]):
        with in_row(number, "queries"):
            if language is not None and text(record, "language") != language:
                continue
            query, asked = identifier(record, "query-id"), text(record, "query")
            if query not in grades:
                # the published code fails on such a query
                remedy = "leave the query out, or download the qrels again"
                got = f"'{query}', which has none"
                raise InputError("query-id", expected="a query with a relevant page", got=got, remedy=remedy)
            for page in grades[query]:
                made.target(page, partial(_item, pages, page))
            made.query(_unique(query, made), Item.of(asked), grades[query])
    for page in pages:
        made.target(page, partial(_item, pages, page))
    return made


@dataclass(frozen=True)
class _Binder:
    """Writes pages, whole or not at all, and not again where they are there."""

    file_name: FileName
    kind: str
    media: Media

    def file(self, page: str, data: bytes) -> str:
        """The path of a page, written."""
        name = self.file_name(page)
        path = self.media.make(name, "corpus-id")
        if Path(name).name != name:
            raise InputError("corpus-id", expected="an id that can name a file", got=f"'{page}'", remedy="mend the row")
        if self.kind == "published" and path.suffix.lower() not in PIL.Image.registered_extensions():
            remedy = "mend the row, or ask for pages: original"
            raise InputError("corpus-id", expected="an id that ends in a format", got=f"'{page}'", remedy=remedy)
        try:
            opened = PIL.Image.open(io.BytesIO(data))
            if self.kind == "original":
                path = path.with_suffix(f".{str(opened.format).lower()}")
            if not path.exists():
                self._write(path, opened, data)
        except (OSError, ValueError, SyntaxError, PIL.Image.DecompressionBombError) as error:
            remedy = "download the rows again, or ask for pages: original"
            raise InputError("image", expected=f"a picture to be '{name}'", got=str(error), remedy=remedy) from error
        return str(path)

    def _write(self, path: Path, opened: PIL.Image.Image, data: bytes) -> None:
        opened.load()  # which refuses what is cut off
        with whole_file(path) as part:
            if self.kind == "original":
                part.write_bytes(data)
            else:
                _upright(opened).save(part, PIL.Image.registered_extensions()[path.suffix.lower()])


def _upright(page: PIL.Image.Image) -> PIL.Image.Image:
    """The page as the library ``datasets`` hands it to the published code."""
    turned = page.getexif().get(PIL.Image.ExifTags.Base.Orientation) is not None
    return PIL.ImageOps.exif_transpose(page) if turned else page


def _grades(rows: Iterator[Record], made: Ranked) -> dict[str, dict[str, float]]:
    """The relevant pages of each query, in the order of the rows."""
    grades: dict[str, dict[str, float]] = {}
    for number, record in enumerate(rows):
        with in_row(number, "qrels"):
            query, page = identifier(record, "query-id"), identifier(record, "corpus-id")
            score = record["score"]
            if isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score):
                raise InputError("score", expected="a number", got=repr(score), remedy="download the rows again")
        if score <= 0:
            made.note(NOT_RELEVANT)
            continue
        own = grades.setdefault(query, {})
        made.note(TWICE, page in own)
        own[page] = max(own.get(page, 0.0), float(score))
    return grades


def _pages(rows: Iterator[Record], binder: _Binder, made: Ranked) -> dict[str, str]:
    """Files of the pages by their ids, the first of several."""
    pages: dict[str, str] = {}
    for number, record in enumerate(rows):
        with in_row(number, "corpus"):
            page = identifier(record, "corpus-id")
            if page in pages:
                made.note(SAME_PAGE)
            else:
                pages[page] = binder.file(page, picture(record, "image").source)
    return pages


def _item(pages: Mapping[str, str], page: str) -> Item:
    if page not in pages:
        remedy = "download the corpus again"
        raise InputError("qrels.corpus-id", expected="a page of the corpus", got=f"'{page}'", remedy=remedy)
    return Item.of({"image": pages[page]})


def _unique(query: str, made: Ranked) -> str:
    if query not in made.queries:
        return query
    made.note(SAME_ID)
    number = 2
    while f"{query} ({number})" in made.queries:
        number += 1
    return f"{query} ({number})"


def _kind(row: SourceSet) -> str:
    kind = row.options.get("pages", "published")
    if kind not in MADE:
        remedy = nearest(str(kind), MADE)
        raise InputError(f"{row.name}.options.pages", expected="how pages are made", got=f"'{kind}'", remedy=remedy)
    return str(kind)


CONVERTERS: dict[str, Converter] = {
    name: Converter(ranked=partial(page_set, file_name), parts=tuple(COLUMNS), columns=COLUMNS)
    for name, file_name in {"vidore": vidore_name, "visrag": visrag_name}.items()
}
