"""Between the page and the model: files into queries, clicks on the page into marks, queries into hits."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL.Image import Image as Picture

from mmembed.errors import InputError
from mmembed.items import Image, Region
from mmembed.items.media import IMAGE_SUFFIXES
from mmembed.media.images import open_image
from mmembed.media.settings import MediaSettings
from mmembed.models.sam2.predict import has_sam
from mmembed.serve.canvas import Canvas
from mmembed.serve.query import Query, Tool
from mmembed.serve.search import Hit, Searcher

FOR_TABLES = "leave the row out"
"""In remedies for files of a table; who gave a file gives another."""


def plain(error: InputError, source: object) -> InputError:
    """The complaint for who gave ``source``: without its folder here, the number of the query and words of tables."""
    folder = f"{Path(source).parent}/" if isinstance(source, str | Path) else "\0"
    where, got = (words.replace(folder, "") for words in (error.where, error.got))
    remedy = "give another file" if FOR_TABLES in error.remedy else error.remedy
    return type(error)(where.removeprefix("item 0: "), expected=error.expected, got=got, remedy=remedy)


class Desk:
    """What a page does with a query; holds none itself, so that any number of people may ask.

    Args:
        searcher: the model and the index.
        instructions: the usual one of each kind of query.
    """

    def __init__(self, searcher: Searcher, instructions: Mapping[str, str]) -> None:
        self.searcher, self.instructions = searcher, instructions
        backbone: Any = searcher.model.settings.backbone
        self.media: MediaSettings = backbone.media
        self.has_regions = searcher.model.settings.regions is not None
        self.has_sam = has_sam(searcher.model)

    @staticmethod
    def is_document(path: str | None) -> bool:
        """Whether a file has pages to choose from."""
        return path is not None and Path(path).suffix.lower() == ".pdf"

    def with_file(self, query: Query, path: str | None, number: int | None) -> Query:
        """The query with a file as its medium: a picture, a page of a PDF, and anything else is taken for a clip.

        Raises:
            InputError: a picture that cannot be opened, or a page below 1.
        """
        if path is None:
            return query.without_medium()
        if self.is_document(path):
            return query.with_page(path, 1 if number is None else int(number))
        is_picture = Path(path).suffix.lower() in IMAGE_SUFFIXES
        return query.with_picture(path, self.media) if is_picture else query.with_clip(path)

    def clicked(self, query: Query, tool: Tool, place: Sequence[float]) -> Query:
        """The query with a click on the drawing.

        Raises:
            InputError: as :meth:`Query.clicked`.
        """
        x, y = place
        return query.clicked(tool, *Canvas(query.size).to_picture(x, y))

    def dragged(self, query: Query, corners: Sequence[float]) -> Query:
        """The query with a box that was dragged on the drawing from one corner to the opposite one.

        Raises:
            InputError: as :meth:`Query.boxed`.
        """
        x0, y0, x1, y1 = corners
        canvas = Canvas(query.size)
        return query.boxed(canvas.to_picture(x0, y0), canvas.to_picture(x1, y1))

    def drawn(self, query: Query, layers: Sequence[Picture]) -> Query:
        """The query with what was painted over its picture; as it was if nothing is."""
        mask = Canvas(query.size).mask_of(layers)
        return query.drawn(mask) if mask.any() else query

    def drawing(self, query: Query) -> Picture | None:
        """The picture with its marks, and with the mask that the model's SAM takes them for, if it has one."""
        if not isinstance(query.medium, Image):
            return None
        return Canvas(query.size).draw(open_image(query.medium, self.media), self._drawn_regions(query))

    def search(self, query: Query, k: int) -> list[Hit]:
        """The ``k`` best items.

        Raises:
            InputError: nothing is asked, or the model cannot embed it.
        """
        try:
            return self.searcher.search(query.item(self.instructions), k)
        except InputError as error:
            raise plain(error, getattr(query.medium, "source", None)) from error

    def _drawn_regions(self, query: Query) -> list[Region]:
        shown, region = query.marks.shown, query.marks.region
        if shown is None:
            return []
        if region is None or region.mask is not None or not self.has_sam or not isinstance(query.medium, Image):
            return [shown]
        found = self.searcher.masks(replace(query.medium, regions=(region,)))
        return [*(Region(mask=one.mask.numpy()) for one in found if one.mask.any()), shown]
