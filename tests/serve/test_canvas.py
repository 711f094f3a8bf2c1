"""Places on the page and in the picture agree, whatever the picture's size."""

import numpy as np
import PIL.Image
import pytest

from mmembed.items import Region
from mmembed.serve.canvas import SIDE_PX, Canvas

SIZES = [(56, 28), (28, 56), (560, 300), (561, 300), (4000, 30), (1, 1), (1920, 1080)]


@pytest.mark.parametrize("size", SIZES)
def test_every_place_of_the_page_is_inside_the_picture_and_corners_are_corners(size):
    canvas = Canvas(size)
    across, down = canvas.shown_size

    assert max(across, down) <= SIDE_PX
    assert max(across, down) > SIDE_PX / 2 or max(size) > SIDE_PX / 2
    for x, y in ((0, 0), (across - 1, down - 1), (across, down), (-3, 5)):
        px, py = canvas.to_picture(x, y)
        assert 0 <= px <= size[0]
        assert 0 <= py <= size[1]
    assert canvas.to_picture(0, 0)[0] <= max(1, size[0] / across)
    assert canvas.to_picture(across - 1, 0)[0] >= size[0] - max(1, size[0] / across)


def test_what_is_drawn_lies_where_the_region_is():
    picture = PIL.Image.new("RGB", (56, 28), (255, 255, 255))

    drawn = np.asarray(Canvas((56, 28)).draw(picture, [Region(box=(10, 5, 20, 15))]))

    # ten pixels to one
    coloured = np.argwhere((drawn == (230, 0, 150)).all(axis=2))
    assert drawn.shape == (280, 560, 3)
    assert coloured.min(axis=0).tolist() == pytest.approx([50, 100], abs=1)
    assert coloured.max(axis=0).tolist() == pytest.approx([149, 199], abs=1)


def test_a_point_is_drawn_around_its_place_and_large_enough_to_be_found():
    picture = PIL.Image.new("RGB", (56, 28), (255, 255, 255))

    drawn = np.asarray(Canvas((56, 28)).draw(picture, [Region(points=((20, 10, 1),))]))

    coloured = np.argwhere((drawn != 255).any(axis=2))
    assert coloured.mean(axis=0).tolist() == pytest.approx([100, 200], abs=1.5)
    assert (np.ptp(coloured, axis=0) >= 20).all()


def test_a_painted_layer_is_a_mask_of_the_picture():
    layer = PIL.Image.new("RGBA", (560, 280), (0, 0, 0, 0))
    layer.paste((230, 0, 150, 255), (100, 50, 200, 150))

    mask = Canvas((56, 28)).mask_of([layer, PIL.Image.new("RGBA", (560, 280), (0, 0, 0, 0))])

    expected = np.zeros((28, 56), dtype=bool)
    expected[5:15, 10:20] = True
    assert (mask == expected).all()
    assert not Canvas((56, 28)).mask_of([]).any()
