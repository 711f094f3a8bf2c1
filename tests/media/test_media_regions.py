import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmembed.errors import InputError
from mmembed.items import Image, Region
from mmembed.media.regions import check_regions, clip_box, eroded, pixels_of, scale_box, scale_regions


def picture(*regions):
    return Image("cat.jpg", tuple(regions))


def test_regions_inside_and_within_a_pixel_pass():
    inside = [
        Region(box=(0, 0, 40, 30)),
        Region(box=(-1.0, -0.5, 41.0, 31.0)),
        Region(points=((0, 0, 1), (40.9, 30.9, 0))),
        Region(mask=np.ones((30, 40), dtype=bool)),
    ]

    check_regions(picture(*inside), width=40, height=30)


@pytest.mark.parametrize(
    "box",
    [(-1.1, 0, 5, 5), (0, -2, 5, 5), (0, 0, 41.5, 5), (0, 0, 5, 32), (40, 0, 41, 5)],
)
def test_a_box_that_leaves_its_picture_is_refused_with_box_size_and_file(box):
    with pytest.raises(InputError) as refusal:
        check_regions(picture(Region(box=(0, 0, 1, 1)), Region(box=box)), width=40, height=30)

    assert "cat.jpg: regions[1].box: expected a box inside the picture of 40 x 30 pixels" in str(refusal.value)
    assert f"got {box}; give pixels of the original picture" in str(refusal.value)


def test_a_point_that_leaves_its_picture_is_refused_with_its_place():
    with pytest.raises(InputError, match=r"regions\[0\]\.points: expected a point inside .*40 x 30.*got \(42, 3, 1\)"):
        check_regions(picture(Region(points=((1, 1, 0), (42, 3, 1)))), width=40, height=30)


def test_a_mask_of_another_size_is_refused_with_its_shape():
    with pytest.raises(InputError, match=r"regions\[0\]\.mask: expected .*40 x 30 .*got a mask of shape \(40, 30\)"):
        check_regions(picture(Region(mask=np.ones((40, 30), dtype=bool))), width=40, height=30)


@given(st.tuples(*[st.floats(-100, 200)] * 4))
def test_a_clipped_box_lies_inside_and_is_clipped_only_once(box):
    clipped = clip_box(box, 40, 30)

    assert all(0 <= value <= limit for value, limit in zip(clipped, (40, 30, 40, 30), strict=True))
    assert clip_box(clipped, 40, 30) == clipped


def test_a_box_inside_is_not_clipped():
    assert clip_box((1.5, 2, 39, 30), 40, 30) == (1.5, 2, 39, 30)
    assert clip_box((-1, -1, 41, 31), 40, 30) == (0, 0, 40, 30)


def test_a_scaled_box_keeps_its_place_in_a_resized_picture():
    assert scale_box((10, 20, 30, 40), from_size=(100, 200), to_size=(50, 400)) == (5, 40, 15, 80)


def test_a_box_scaled_there_and_back_is_itself():
    box = (3.0, 7.0, 91.0, 120.0)

    assert scale_box(scale_box(box, (97, 131), (56, 84)), (56, 84), (97, 131)) == pytest.approx(box)


def test_regions_follow_a_resized_picture_without_what_left_it():
    mask = np.zeros((20, 10), dtype=bool)
    mask[10:, :5] = True
    image = Image("a.png", (Region(box=(-1, 5, 5, 21)), Region(points=((10.5, 20, 0),)), Region(mask=mask)))

    box, points, drawn = scale_regions(image, (10, 20), (20, 10)).regions

    assert box == Region(box=(0, 2.5, 10, 10))
    assert points == Region(points=((20, 10, 0),))
    expected = np.zeros((10, 20), dtype=bool)
    expected[5:, :10] = True
    assert drawn.mask.dtype == bool
    assert (drawn.mask == expected).all()
    assert scale_regions(image, (10, 20), (10, 20)) is image


def test_a_mask_smaller_than_a_pixel_is_not_lost():
    mask = np.zeros((100, 100), dtype=bool)
    mask[41, 67] = True

    [region] = scale_regions(Image("a.png", (Region(mask=mask),)), (100, 100), (10, 10)).regions

    assert np.argwhere(region.mask).tolist() == [[4, 6]]


@pytest.mark.parametrize("depth", [0, 1, 2, 5])
def test_an_eroded_mask_is_what_a_square_around_each_pixel_fits_in(depth):
    mask = np.random.default_rng(depth).random((12, 9)) < 0.95
    around = np.pad(mask, depth)
    size = 2 * depth + 1

    found = eroded(mask, depth)

    slow = [[around[y : y + size, x : x + size].all() for x in range(9)] for y in range(12)]
    assert found.dtype == bool
    assert (found == slow).all()


@pytest.mark.parametrize(
    ("box", "pixels"),
    [
        ((0, 0, 1, 1), (0, 0, 9, 19)),
        ((0.2, 0.1, 0.5, 0.6), (2, 2, 4, 11)),
        ((0.51, 0.51, 0.52, 0.52), (5, 10, 5, 10)),
        ((-0.3, -0.3, 0.04, 0.02), (0, 0, 0, 0)),
        ((0.98, 0.99, 1.4, 1.4), (9, 19, 9, 19)),
    ],
)
def test_a_box_covers_a_pixel_at_least(box, pixels):
    assert pixels_of(box, 10, 20) == pixels
