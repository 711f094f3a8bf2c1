"""Pages of PDF documents, drawn as RGB pictures by pdfium."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import PIL.Image
import pypdfium2 as pdfium

from mmembed.errors import MediaError
from mmembed.items import Page
from mmembed.media.images import check_size
from mmembed.media.settings import MediaSettings
from mmembed.media.sources import existing_file, source_name

POINTS_PER_INCH = 72


def render_page(page: Page, settings: MediaSettings) -> PIL.Image.Image:
    """Draw one page on white at ``page.dpi`` dots per inch.

    Raises:
        MediaError: the file is missing, no readable PDF, has no such page, or the drawing would exceed the size limit.
    """
    name = source_name(page.source)
    with _document(page, name) as document:
        if page.page > len(document):
            raise MediaError(
                name, expected=f"a page from 1 to {len(document)}", got=page.page, remedy="pages are counted from 1"
            )
        return _drawn(document[page.page - 1], page.dpi / POINTS_PER_INCH, settings, name)


def _drawn(sheet: Any, scale: float, settings: MediaSettings, name: str) -> PIL.Image.Image:
    width, height = (length * scale for length in sheet.get_size())
    check_size(round(width), round(height), settings, name)
    picture: PIL.Image.Image = sheet.render(scale=scale).to_pil()
    return picture.convert("RGB")


@contextmanager
def _document(page: Page, name: str) -> Iterator[Any]:
    source = page.source if isinstance(page.source, bytes) else existing_file(page.source)
    try:
        with closing(pdfium.PdfDocument(source)) as document:
            yield document
    except pdfium.PdfiumError as error:
        remedy = "open it in a viewer; save it again, without a password"
        raise MediaError(name, expected="a readable PDF", got=error, remedy=remedy) from error
