import io

import PIL.Image
import pytest
from fpdf import FPDF
from PIL import ExifTags

from mmembed.counters import counting
from mmembed.errors import InputError, MediaError
from mmembed.items import Image, Page, Region, Video
from mmembed.media.decode import decode
from mmembed.media.settings import MediaSettings

DEFAULT = MediaSettings()


def blank_pdf():
    pdf = FPDF(unit="pt", format=(60, 40))
    pdf.add_page()
    return bytes(pdf.output())


def encoded_noise(width, height, kind):
    stored = io.BytesIO()
    PIL.Image.effect_noise((width, height), 80).convert("RGB").save(stored, kind)
    return stored.getvalue()


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


@pytest.mark.parametrize(
    ("draft_pixels", "decoded"),
    [(None, (400, 240)), (96_000, (400, 240)), (24_001, (400, 240)), (24_000, (200, 120)), (1, (50, 30))],
)
def test_a_draft_is_decoded_smaller_while_so_many_pixels_are_left(draft_pixels, decoded):
    stored = encoded_noise(400, 240, "JPEG")

    frames = decode(Image(stored), MediaSettings(draft_pixels=draft_pixels))

    assert frames.pictures[0].size == decoded
    # regions and words tell of the picture as it is stored
    assert frames.size == (400, 240)


def test_a_draft_leaves_other_files_and_pictures_with_regions_whole():
    settings = MediaSettings(draft_pixels=100)
    jpeg, png = (encoded_noise(80, 48, kind) for kind in ("JPEG", "PNG"))
    regions = (Region(box=(40, 20, 80, 48)),)

    for image in (Image(jpeg, regions), Image(png), Image(PIL.Image.open(io.BytesIO(jpeg)))):
        assert decode(image, settings).pictures[0].tobytes() == decode(image, DEFAULT).pictures[0].tobytes()


def test_a_draft_of_a_picture_on_its_side_is_turned():
    picture = PIL.Image.effect_noise((80, 48), 80).convert("RGB")
    exif = picture.getexif()
    exif[ExifTags.Base.Orientation] = 6
    stored = io.BytesIO()
    picture.save(stored, "JPEG", exif=exif)

    frames = decode(Image(stored.getvalue()), MediaSettings(exif=True, draft_pixels=100))

    assert frames.pictures[0].size == (12, 20)
    assert frames.size == (48, 80)


def test_square_comes_before_anything_else_and_is_pillows_resize():
    picture = PIL.Image.effect_noise((60, 30), 80).convert("RGB")
    settings = MediaSettings(square=16)

    still = decode(Image(picture), settings)
    clip = decode(Video((picture, picture.transpose(PIL.Image.Transpose.FLIP_TOP_BOTTOM))), settings)
    page = decode(Page(blank_pdf()), settings)

    assert still.pictures[0].tobytes() == picture.resize((16, 16)).tobytes()
    assert clip.pictures[0].tobytes() == still.pictures[0].tobytes()
    assert [frame.size for frame in (*clip.pictures, *page.pictures)] == [(16, 16)] * 3
    assert clip.indices == (0, 1)
    with pytest.raises(InputError, match=r"media\.square: expected at least 1, got 0"):
        MediaSettings(square=0)
