import base64
import io

import PIL.Image
import pytest

from mmembed.counters import counting
from mmembed.evaluation.thumbnails import Shown, Thumbnails
from mmembed.items import Image, Item, Region, Video
from mmembed.media.settings import AllFrames, MediaSettings


def opened(uri):
    head, data = uri.split(",", 1)
    picture = PIL.Image.open(io.BytesIO(base64.b64decode(data)))
    assert head == f"data:image/{picture.format.lower()};base64"
    return picture


def uniform(colour, size=(40, 30)):
    return PIL.Image.new("RGB", size, colour)


def test_parts_come_in_reading_order():
    shown = Thumbnails(MediaSettings()).show(Item(("before", Image(uniform((9, 200, 30))), "after")))

    assert [part.text for part in shown] == ["before", "", "after"]
    assert opened(shown[1].pictures[0]).getpixel((3, 3)) == (9, 200, 30)


def test_a_large_picture_shrinks_and_a_small_one_stays_as_it_is():
    thumbnails = Thumbnails(MediaSettings(), side_px=120)

    large, small = (
        opened(thumbnails.show(Item((Image(uniform((1, 2, 3), size)),)))[0].pictures[0])
        for size in ((600, 300), (56, 40))
    )

    assert (large.size, large.format) == ((120, 60), "JPEG")
    assert (small.size, small.format) == ((56, 40), "PNG")


def test_a_prompted_box_and_points_are_drawn_at_their_place():
    regions = (Region(box=(100, 100, 300, 200)), Region(points=((350, 20, 1),)))
    picture = uniform((255, 255, 255), (400, 400))

    shown = Thumbnails(MediaSettings(), side_px=80).show(Item((Image(picture, regions),)))

    drawn = opened(shown[0].pictures[0])
    for inside, expected in (((40, 20), True), ((20, 30), True), ((70, 4), True), ((40, 30), False), ((70, 60), False)):
        assert (drawn.getpixel(inside)[2] < 150) == expected
    assert picture.getcolors() == [(160000, (255, 255, 255))]


@pytest.mark.parametrize(("total", "kept"), [(2, [0, 1]), (4, [0, 1, 2, 3]), (8, [1, 3, 5, 7])])
def test_a_clip_is_a_strip_of_a_few_frames(total, kept):
    frames = tuple(uniform((20 * i, 0, 0)) for i in range(total))

    shown = Thumbnails(MediaSettings(sampling=AllFrames()), num_frames=4).show(Item((Video(frames),)))

    assert [opened(uri).getpixel((0, 0))[0] // 20 for uri in shown[0].pictures] == kept


def test_a_picture_shown_twice_is_decoded_once(tmp_path):
    uniform((5, 6, 7)).save(tmp_path / "a.png")
    thumbnails = Thumbnails(MediaSettings())

    with counting() as work:
        first, second = (thumbnails.show(Item.of({"image": tmp_path / "a.png", "text": t})) for t in ("x", "y"))

    assert work["media_decoded"] == 1
    assert first[0] == second[0]
    assert second[1] == Shown("y")
