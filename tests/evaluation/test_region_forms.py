"""Regions told in words, cut out of their picture, and moved in it."""

import io

import numpy as np
import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmembed.errors import InputError
from mmembed.evaluation.region_forms import (
    REGION_WORDS,
    apart,
    bounds,
    check_region_words,
    cropped,
    in_form,
    in_words,
    moved,
)
from mmembed.items import Image, Item, Region
from mmembed.media.images import open_image
from mmembed.media.settings import MediaSettings
from mmembed.models.region_encoders.crop import CropPreparer
from mmembed.models.settings import Crop

MEDIA = MediaSettings()
SIZE = (40, 30)


def picture(size=SIZE):
    """Every pixel another colour, so that a cut says where it was made."""
    columns, rows = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    return PIL.Image.fromarray(np.stack([columns, rows, np.zeros_like(rows)], axis=-1).astype(np.uint8))


def mask(x0, y0, x1, y1, size=SIZE):
    inside = np.zeros((size[1], size[0]), dtype=bool)
    inside[y0:y1, x0:x1] = True
    inside[y0, x0] = False
    return inside


def a_query(*regions):
    return Item((Image(picture(), tuple(regions)),), "Find it.", verbatim=False)


BOX = Region(box=(4.5, 6.0, 14.0, 16.25))
POINTS = Region(points=((10.0, 10.0, 1), (12.0, 18.0, 0)))
MASK = Region(mask=mask(5, 8, 15, 20))


def test_words_are_the_published_ones_digit_by_digit():
    told = in_words(a_query(BOX), "\nReferring object bbox: [{x0}, {y0}, {x1}, {y1}]", MEDIA)

    assert told.content[1] == "\nReferring object bbox: [4.5, 6.0, 14.0, 16.25]"
    assert told.content[0].regions == (BOX,)
    assert told.instruction == "Find it."


def test_a_mask_and_points_are_told_by_the_box_around_them_and_points_outside_are_not_in_it():
    told = in_words(a_query(MASK, POINTS), "({x0:.0f} {y0:.0f} {x1:.0f} {y1:.0f})", MEDIA)

    assert told.content[1] == "(5 8 15 20)(10 10 10 10)"


@pytest.mark.parametrize(
    ("form", "regions", "text"),
    [("region", 1, ""), ("words", 0, "0.0 1.0 2.0 3.0"), ("both", 1, "0.0 1.0 2.0 3.0"), ("crop", 0, "")],
)
def test_a_form_keeps_or_takes_the_region_and_tells_it_or_not(form, regions, text):
    shown = in_form(a_query(Region(box=(0.0, 1.0, 2.0, 3.0))), form, "{x0} {y0} {x1} {y1}", MEDIA)

    assert (len(shown.media[0].regions), shown.text) == (regions, text)


@pytest.mark.parametrize("form", ["region", "words", "both", "crop"])
def test_an_item_without_regions_has_one_form(form):
    item = Item((Image(picture()), "red"), verbatim=False)

    assert in_form(item, form, REGION_WORDS, MEDIA) == item


def test_words_are_by_default_those_of_the_demo_of_virtue():
    assert in_words(a_query(BOX), REGION_WORDS, MEDIA).content[1] == "\nReferring object bbox: (4, 6, 14, 16)"


def test_words_need_a_place_in_the_layout():
    item = Item((Image(picture(), (BOX,)),), layout="{media}")

    with pytest.raises(InputError, match="a place for the item's text"):
        in_form(item, "words", REGION_WORDS, MEDIA)


@pytest.mark.parametrize("region", [BOX, MASK])
def test_a_crop_holds_the_pixels_of_its_region_and_no_others(region):
    (cut,) = cropped(a_query(region), MEDIA).media

    pixels = np.asarray(PIL.Image.open(io.BytesIO(cut.source)).convert("RGB"))
    x0, y0, x1, y1 = bounds(region, SIZE)
    assert cut.regions == ()
    assert tuple(pixels[0, 0, :2]) == (int(x0), int(y0))
    assert tuple(pixels[-1, -1, :2]) == (int(np.ceil(x1)) - 1, int(np.ceil(y1)) - 1)


@pytest.mark.parametrize("region", [BOX, MASK, Region(points=((10.0, 10.0, 1), (12.0, 18.0, 1)))])
def test_a_crop_is_what_a_model_that_crops_sees(region):
    (cut,) = cropped(a_query(region), MEDIA).media

    seen = CropPreparer(Crop()).redraw(Image(picture(), (region,)), picture())
    assert np.array_equal(np.asarray(PIL.Image.open(io.BytesIO(cut.source))), np.asarray(seen))


@pytest.mark.parametrize("regions", [(BOX, MASK), (POINTS,)])
def test_what_no_crop_can_show_is_refused(regions):
    with pytest.raises(InputError, match=r"expected (one region|points inside), which"):
        cropped(a_query(*regions), MEDIA)


@st.composite
def boxes(draw):
    x0, y0 = draw(st.integers(0, 38)), draw(st.integers(0, 28))
    return (float(x0), float(y0), float(draw(st.integers(x0 + 1, 40))), float(draw(st.integers(y0 + 1, 30))))


@given(boxes(), st.integers(0, 5))
def test_a_moved_box_is_as_large_lies_inside_and_apart_if_there_is_room(box, seed):
    image = Image(picture(), (Region(box=box),))

    (region,) = moved(image, f"q{seed}", MEDIA).regions

    x0, y0, x1, y1 = region.box
    width, height = box[2] - box[0], box[3] - box[1]
    assert (x1 - x0, y1 - y0) == (width, height)
    assert x0 >= 0 and y0 >= 0 and x1 <= SIZE[0] and y1 <= SIZE[1]
    apart = x1 <= box[0] or x0 >= box[2] or y1 <= box[1] or y0 >= box[3]
    room = max(box[0], SIZE[0] - box[2]) >= width or max(box[1], SIZE[1] - box[3]) >= height
    assert apart == room
    # what fills its picture has nowhere to go
    assert (region.box == box) == ((width, height) == SIZE)


@pytest.mark.parametrize("region", [POINTS, MASK])
def test_moved_points_and_masks_keep_their_shape(region):
    (there,) = moved(Image(picture(), (region,)), "q1", MEDIA).regions

    (x0, y0, *_), (u0, v0, *_) = bounds(region, SIZE), bounds(there, SIZE)
    assert (u0, v0) != (x0, y0)
    if region.mask is None:
        assert [(x - u0, y - v0, label) for x, y, label in there.points] == [
            (x - x0, y - y0, label) for x, y, label in region.points
        ]
    else:
        rolled = np.roll(there.mask, (int(y0 - v0), int(x0 - u0)), axis=(0, 1))
        assert np.array_equal(rolled, region.mask)
    assert open_image(Image(picture(), (there,)), MEDIA).size == SIZE


def test_a_moved_point_is_a_pixel_away_at_least():
    point = Image(picture((3, 2)), (Region(points=((1.0, 1.0, 1),)),))

    there = {moved(point, f"q{i}", MEDIA).regions[0].points[0][:2] for i in range(40)}

    assert len(there) > 3
    assert all(max(abs(x - 1), abs(y - 1)) >= 1 for x, y in there)


def test_regions_that_share_more_than_half_are_no_two_places():
    box = [Region(box=(0, 0, 10, 10))]

    assert apart(box, [Region(box=(0, 0, 10, 5))], SIZE)
    assert not apart(box, [Region(box=(0, 0, 10, 6))], SIZE)
    assert not apart(box, [Region(box=(20, 20, 30, 30)), Region(box=(1, 0, 10, 10))], SIZE)
    point = Region(points=((5.0, 5.0, 1),))
    assert not apart([point], [Region(points=((5.2, 5.0, 1), (30.0, 20.0, 0)))], SIZE)
    assert apart([point], [Region(points=((7.0, 5.0, 1),))], SIZE)


def test_queries_move_their_regions_independently():
    image = Image(picture(), (Region(box=(1, 1, 5, 5)),))

    assert moved(image, "q1", MEDIA) == moved(image, "q1", MEDIA)
    assert len({moved(image, f"q{i}", MEDIA).regions[0].box for i in range(8)}) > 4


@pytest.mark.parametrize("words", ["no slot", "{x0} {y0} {x1}", "{x0} {y0} {x1} {y1} {z}", "{x0", "{x0.real.q} {y0}"])
def test_words_that_do_not_tell_a_box_are_refused(words):
    with pytest.raises(InputError, match=r"region_words: expected words with \{x0\}"):
        check_region_words(words)


def test_words_that_tell_a_box_are_taken():
    check_region_words(REGION_WORDS)
    check_region_words("{x1:.0f} {x0:.0f} {y1:.0f} {y0:.0f}")
