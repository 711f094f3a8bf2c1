import PIL.Image
import pytest
from fpdf import FPDF

from mmembed.counters import counting
from mmembed.errors import MediaError
from mmembed.items import Image, Page, Video
from mmembed.media.decode import decode
from mmembed.media.settings import MediaSettings

DEFAULT = MediaSettings()


def blank_pdf():
    pdf = FPDF(unit="pt", format=(60, 40))
    pdf.add_page()
    return bytes(pdf.output())


def test_every_kind_of_medium_comes_out_as_rgb_pictures_and_counts_once():
    red, blue = (PIL.Image.new("RGB", (6, 4), colour) for colour in ("red", "blue"))

    with counting() as work:
        image, page, video = (decode(m, DEFAULT) for m in (Image(red), Page(blank_pdf(), dpi=72), Video((red, blue))))

    assert work["media_decoded"] == 3
    assert [picture.size for picture in image.pictures + page.pictures] == [(6, 4), (60, 40)]
    assert [picture.getpixel((0, 0)) for picture in video.pictures] == [(255, 0, 0), (0, 0, 255)]
    assert image.indices == page.indices == (0,)
    assert image.fps == page.fps == 0.0
    assert image.timestamps_s == (0.0,)


def test_a_refused_medium_is_not_counted(tmp_path):
    with counting() as work, pytest.raises(MediaError, match=r"gone\.jpg"):
        decode(Image(tmp_path / "gone.jpg"), DEFAULT)

    assert work["media_decoded"] == 0
