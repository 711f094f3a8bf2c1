import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmembed.errors import InputError
from mmembed.items import Image, Region
from mmembed.media.regions import check_regions, clip_box, scale_box


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
