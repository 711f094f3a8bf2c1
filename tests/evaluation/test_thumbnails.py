import base64
import io

import numpy as np
import PIL.Image
import pytest
from fpdf import FPDF

from mmembed.counters import counting
from mmembed.evaluation.thumbnails import Shown, Thumbnails
from mmembed.items import Image, Item, Page, Region, Video
from mmembed.media.settings import AllFrames, MediaSettings

WHITE = (255, 255, 255)


def opened(picture):
    head, data = picture.uri.split(",", 1)
    found = PIL.Image.open(io.BytesIO(base64.b64decode(data)))
    assert head == f"data:image/{found.format.lower()};base64"
    assert found.size == (picture.width, picture.height)
    return found


def uniform(colour, size=(40, 30)):
    return PIL.Image.new("RGB", size, colour)


def shown(medium, **options):
    """What is said of a medium, and its pictures as RGB."""
    (part,) = Thumbnails(MediaSettings(sampling=AllFrames()), **options).show(Item((medium,)))
    return part.text, [opened(picture).convert("RGB") for picture in part.pictures]


def is_drawn(picture, place):
    """Whether the pixel of a once white picture is coloured: green is what all the colours lack."""
    return picture.getpixel(place)[1] < 200


def test_parts_come_in_reading_order():
    parts = Thumbnails(MediaSettings()).show(Item(("before", Image(uniform((9, 200, 30))), "after")))

    assert [part.text for part in parts] == ["before", "picture", "after"]
    assert [len(part.pictures) for part in parts] == [0, 1, 0]
    assert opened(parts[1].pictures[0]).getpixel((3, 3)) == (9, 200, 30)


@pytest.mark.parametrize(("size", "expected", "kind"), [((600, 300), (120, 60), "WEBP"), ((56, 40), (56, 40), "PNG")])
def test_a_large_picture_shrinks_and_a_small_one_stays_as_it_is(size, expected, kind):
    (part,) = Thumbnails(MediaSettings(), side_px=120).show(Item((Image(uniform((1, 2, 3), size)),)))

    picture = opened(part.pictures[0])
    assert (picture.size, picture.format) == (expected, kind)


def test_a_prompted_box_is_drawn_at_its_place():
    picture = uniform(WHITE, (400, 400))

    text, (drawn,) = shown(Image(picture, (Region(box=(100, 100, 300, 200)),)), side_px=80)

    assert text == "picture, 1 box"
    for place, expected in (((40, 20), True), ((20, 30), True), ((40, 30), False), ((70, 60), False)):
        assert is_drawn(drawn, place) == expected
    assert picture.getcolors() == [(160000, WHITE)]


def test_points_show_which_of_them_are_inside_of_what_is_meant():
    points = Region(points=((100, 100, 1), (300, 300, 0)))

    text, (drawn,) = shown(Image(uniform(WHITE, (400, 400)), (points,)), side_px=200)

    assert text == "picture, 2 points"
    inside, outside = (sum(is_drawn(drawn, (x - 3, y + d)) for d in (-2, 2)) for x, y in ((50, 50), (150, 150)))
    assert (inside, outside) == (2, 0)
    assert is_drawn(drawn, (150, 150))
    assert not is_drawn(drawn, (100, 100))


def test_a_mask_is_a_tint_with_an_edge_and_what_is_under_it_stays_visible():
    mask = np.zeros((400, 400), dtype=bool)
    mask[100:300, 200:400] = True
    picture = uniform(WHITE, (400, 400))
    picture.paste((0, 0, 0), (300, 100, 400, 300))

    text, (drawn,) = shown(Image(picture, (Region(mask=mask),)), side_px=200)

    assert text == "picture, 1 mask"
    assert not is_drawn(drawn, (60, 100))
    on_white, on_black, edge = (drawn.getpixel(place) for place in ((125, 100), (180, 100), (100, 80)))
    assert 120 < on_white[1] < 180
    assert on_black[0] > 70 and on_black[1] < 20
    assert edge[1] < 110


def test_regions_of_a_tiny_picture_are_finer_than_its_pixels():
    text, (drawn,) = shown(Image(uniform(WHITE, (20, 10)), (Region(box=(5, 2, 15, 8)), Region(box=(0, 0, 2, 2)))))

    assert text == "picture, 2 boxes"
    assert drawn.size == (180, 90)
    row = [is_drawn(drawn, (x, 45)) for x in range(180)]
    assert row.index(True) == 45
    assert sum(row) == 4


@pytest.mark.parametrize(("total", "kept"), [(2, [0, 1]), (4, [0, 1, 2, 3]), (8, [1, 3, 5, 7])])
def test_a_clip_is_a_strip_of_a_few_frames(total, kept):
    frames = tuple(uniform((20 * i, 0, 0)) for i in range(total))

    text, pictures = shown(Video(frames), num_frames=4)

    assert [picture.getpixel((0, 0))[0] // 20 for picture in pictures] == kept
    assert text == f"clip, {len(kept)} of {total} frames"


def test_a_page_is_shown_with_its_number():
    document = FPDF(unit="pt", format=(100, 200))
    for _ in range(3):
        document.add_page()

    text, (picture,) = shown(Page(bytes(document.output()), page=2), side_px=100)

    assert (text, picture.size) == ("page 2", (50, 100))


def test_a_picture_shown_twice_is_decoded_once(tmp_path):
    uniform((5, 6, 7)).save(tmp_path / "a.png")
    thumbnails = Thumbnails(MediaSettings())

    with counting() as work:
        first, second = (thumbnails.show(Item.of({"image": tmp_path / "a.png", "text": t})) for t in ("x", "y"))

    assert work["media_decoded"] == 1
    assert first[0] == second[0]
    assert second[1] == Shown("y")
