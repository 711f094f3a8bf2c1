import io
import warnings

import numpy as np
import PIL.Image
import pytest

from mmembed.errors import InputError, MediaError
from mmembed.items import Image, Region
from mmembed.media.images import open_image, picture_size
from mmembed.media.settings import MediaSettings

DEFAULT = MediaSettings()


def noise(width=40, height=30, channels=3, seed=0):
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def encoded(picture, kind, **options):
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def test_path_text_bytes_and_open_picture_give_the_same_pixels(tmp_path):
    picture = PIL.Image.fromarray(noise())
    path = tmp_path / "noise.png"
    picture.save(path)

    opened = [open_image(Image(source), DEFAULT) for source in (path, str(path), path.read_bytes(), picture)]

    assert {one.mode for one in opened} == {"RGB"}
    assert all((np.asarray(one) == noise()).all() for one in opened)


def test_an_open_picture_stays_open_and_unchanged():
    picture = PIL.Image.fromarray(noise(channels=4), "RGBA")

    opened = open_image(Image(picture), DEFAULT)
    opened.putpixel((0, 0), (1, 2, 3))

    assert picture.mode == "RGBA"
    assert (np.asarray(picture) == noise(channels=4)).all()


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "HSV", "I", "F", "I;16", "I;16B"]
)
def test_every_mode_becomes_rgb_as_pillow_converts_it(mode):
    grey = PIL.Image.fromarray(noise(channels=1))
    picture = grey.convert(mode) if mode in ("I", "F", "P", "1", "L") else PIL.Image.new(mode, (40, 30), 77)

    opened = open_image(Image(picture), DEFAULT)

    assert opened.mode == "RGB"
    assert (np.asarray(opened) == np.asarray(picture.convert("RGB"))).all()


def test_sixteen_bit_grey_is_cut_at_255_not_rescaled():
    picture = PIL.Image.fromarray(np.array([[0, 200, 255, 256, 65535]], dtype=np.uint16))

    opened = open_image(Image(encoded(picture, "PNG")), DEFAULT)

    assert np.asarray(opened)[0, :, 0].tolist() == [0, 200, 255, 255, 255]


def test_transparency_is_dropped_by_default_and_laid_on_white_on_request():
    pixels = np.array([[[10, 20, 30, 0], [10, 20, 30, 255], [100, 0, 50, 51]]], dtype=np.uint8)
    source = Image(encoded(PIL.Image.fromarray(pixels), "PNG"))

    dropped, white = (open_image(source, MediaSettings(alpha=alpha)) for alpha in ("drop", "white"))

    assert np.asarray(dropped)[0].tolist() == [[10, 20, 30], [10, 20, 30], [100, 0, 50]]
    # 51 / 255 = one fifth of the colour over four fifths of white
    assert np.asarray(white)[0].tolist() == [[255, 255, 255], [10, 20, 30], [224, 204, 214]]


def test_a_palette_with_transparency_is_laid_on_white_too():
    picture = PIL.Image.fromarray(np.array([[0, 1]], dtype=np.uint8))
    picture.putpalette([200, 0, 0, 0, 100, 0])
    source = Image(encoded(picture, "PNG", transparency=bytes([0, 255])))

    assert np.asarray(open_image(source, DEFAULT))[0].tolist() == [[200, 0, 0], [0, 100, 0]]
    assert np.asarray(open_image(source, MediaSettings(alpha="white")))[0].tolist() == [[255] * 3, [0, 100, 0]]


def test_exif_orientation_turns_the_picture_only_on_request():
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # shown a quarter turn clockwise
    source = Image(encoded(PIL.Image.fromarray(noise()), "PNG", exif=exif))

    stored, shown = open_image(source, DEFAULT), open_image(source, MediaSettings(exif=True))

    assert (np.asarray(stored) == noise()).all()
    assert (np.asarray(shown) == np.rot90(noise(), k=-1)).all()


def test_an_animation_gives_its_first_frame():
    first, second = (PIL.Image.new("RGB", (8, 8), colour) for colour in ("red", "blue"))
    source = Image(encoded(first, "GIF", save_all=True, append_images=[second]))

    assert open_image(source, DEFAULT).getpixel((0, 0)) == (255, 0, 0)


def test_a_missing_image_is_named_with_a_remedy(tmp_path):
    with pytest.raises(
        MediaError, match=r"gone\.jpg: expected a file, got no such file; check the path and --data-root"
    ):
        open_image(Image(tmp_path / "gone.jpg"), DEFAULT)


def test_a_folder_is_no_image(tmp_path):
    with pytest.raises(MediaError, match="expected a file, got a folder"):
        open_image(Image(str(tmp_path)), DEFAULT)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"])
def test_a_truncated_picture_is_refused_by_name(tmp_path, kind):
    path = tmp_path / f"half.{kind.lower()}"
    whole = encoded(PIL.Image.fromarray(noise(200, 150)), kind)
    path.write_bytes(whole[: len(whole) // 2])

    with pytest.raises(
        MediaError, match=rf"half\.{kind.lower()}: expected a whole picture, got .*; download the file again"
    ):
        open_image(Image(path), DEFAULT)


@pytest.mark.parametrize("content", [b"", b"<html>404 Not Found</html>"])
def test_bytes_that_are_no_picture_are_refused(content):
    with pytest.raises(MediaError, match=f"{len(content)} bytes in memory: expected a whole picture, got Unidentified"):
        open_image(Image(content), DEFAULT)


def test_a_picture_over_the_limit_is_refused_before_it_is_decoded(tmp_path):
    path = tmp_path / "large.png"
    whole = encoded(PIL.Image.new("L", (1200, 1000)), "PNG")
    path.write_bytes(whole[:60])  # the header alone: decoding would fail

    with pytest.raises(MediaError, match=r"large\.png: expected at most 1 megapixels, got 1200 x 1000 pixels; shrink"):
        open_image(Image(path), MediaSettings(max_image_megapixels=1.0))


def test_an_open_picture_over_the_limit_is_refused():
    with pytest.raises(MediaError, match=r"an open picture of 1200 x 1000 pixels: expected at most 1 megapixels"):
        open_image(Image(PIL.Image.new("1", (1200, 1000))), MediaSettings(max_image_megapixels=1.0))


def test_a_decompression_bomb_is_refused_under_the_default_limit():
    bomb = b"P5 14000 14000 255\n"  # a PGM header that promises 196 megapixels

    with pytest.raises(MediaError, match=r"expected at most 179 megapixels, got .*196000000 pixels"):
        open_image(Image(bomb), DEFAULT)


def test_pillows_own_size_warning_does_not_leak_and_its_limit_stays(monkeypatch):
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 1000)
    source = Image(encoded(PIL.Image.fromarray(noise()), "PNG"))  # 1200 pixels: over the limit, under twice the limit

    with warnings.catch_warnings(record=True) as leaked:
        warnings.simplefilter("always")
        open_image(source, DEFAULT)

    assert leaked == []
    assert PIL.Image.MAX_IMAGE_PIXELS == 1000


def test_a_box_outside_its_image_is_refused_with_the_file(tmp_path):
    path = tmp_path / "cat.png"
    PIL.Image.fromarray(noise()).save(path)

    with pytest.raises(
        InputError, match=r"cat\.png: regions\[0\]\.box: expected .*40 x 30.*got \(5\.0, 5\.0, 60\.0, 20\.0\)"
    ):
        open_image(Image(path, (Region(box=(5.0, 5.0, 60.0, 20.0)),)), DEFAULT)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("turned", [False, True])
def test_the_size_is_that_of_the_opened_picture(tmp_path, kind, orientation, turned):
    exif, settings = PIL.Image.Exif(), MediaSettings(exif=turned)
    exif[0x0112] = orientation
    path = tmp_path / "p"
    path.write_bytes(encoded(PIL.Image.fromarray(noise()), kind, exif=exif))

    for source in (path, str(path), path.read_bytes(), PIL.Image.open(path)):
        assert picture_size(Image(source), settings) == open_image(Image(source), settings).size


@pytest.mark.parametrize("source", [b"noise", "gone.png", PIL.Image.new("L", (20_000, 10_000))])
def test_a_picture_without_a_size_is_refused(source):
    with pytest.raises(MediaError):
        picture_size(Image(source), DEFAULT)
