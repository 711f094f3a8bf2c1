import numpy as np
import pytest
from fpdf import FPDF

from mmembed.errors import MediaError
from mmembed.items import Page
from mmembed.media.pages import render_page
from mmembed.media.settings import MediaSettings

DEFAULT = MediaSettings()
COLOURS = [(200, 30, 30), (30, 200, 30), (30, 30, 200)]


@pytest.fixture
def document(tmp_path):
    """Three pages of 100 x 50 points, each with a rectangle of its own colour in the upper left quarter."""
    pdf = FPDF(unit="pt", format=(100, 50))
    for colour in COLOURS:
        pdf.add_page()
        pdf.set_fill_color(*colour)
        pdf.rect(0, 0, 50, 25, style="F")
    path = tmp_path / "three.pdf"
    pdf.output(str(path))
    return path


def test_pages_are_counted_from_one_and_drawn_on_white(document):
    for number, colour in enumerate(COLOURS, start=1):
        drawn = render_page(Page(document, page=number), DEFAULT)

        assert drawn.mode == "RGB"
        assert drawn.getpixel((20, 10)) == colour
        assert drawn.getpixel((180, 90)) == (255, 255, 255)


def test_dpi_sets_the_size(document):
    assert render_page(Page(document, dpi=72), DEFAULT).size == (100, 50)
    assert render_page(Page(document, dpi=144), DEFAULT).size == (200, 100)


def test_bytes_and_path_give_the_same_page(document):
    of_path, of_bytes = (
        render_page(Page(source, page=2), DEFAULT) for source in (str(document), document.read_bytes())
    )

    assert (np.asarray(of_path) == np.asarray(of_bytes)).all()


def test_a_page_beyond_the_document_is_refused_with_the_count(document):
    with pytest.raises(MediaError, match=r"three\.pdf: expected a page from 1 to 3, got 4; pages are counted from 1"):
        render_page(Page(document, page=4), DEFAULT)


def test_a_broken_pdf_is_refused_by_name(tmp_path):
    path = tmp_path / "broken.pdf"
    path.write_bytes(b"%PDF-1.7 and nothing more")

    with pytest.raises(MediaError, match=r"broken\.pdf: expected a readable PDF, got .*; open it in a viewer"):
        render_page(Page(path), DEFAULT)


def test_a_missing_pdf_is_refused_by_name(tmp_path):
    with pytest.raises(MediaError, match=r"gone\.pdf: expected a file, got no such file"):
        render_page(Page(tmp_path / "gone.pdf"), DEFAULT)


def test_a_drawing_over_the_size_limit_is_refused_before_it_is_drawn(document):
    with pytest.raises(MediaError, match=r"three\.pdf: expected at most 1 megapixels, got 2000 x 1000 pixels"):
        render_page(Page(document, dpi=1440), MediaSettings(max_image_megapixels=1.0))
