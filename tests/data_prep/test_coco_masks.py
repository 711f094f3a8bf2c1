"""Masks of COCO annotations in each of their forms."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.converters.coco_masks import mask_of, unpacked
from mmembed.data.masks import runs_of_mask
from mmembed.errors import InputError

SIZE = (6, 4)


def packed(counts):
    """The slow, obvious twin of COCO's packing."""
    characters = []
    for i, count in enumerate(counts):
        value = count - counts[i - 2] if i > 2 else count
        while True:
            bits, value = value & 31, value >> 5
            done = (value == 0 and not bits & 16) or (value == -1 and bits & 16)
            characters.append(chr((bits if done else bits | 32) + 48))
            if done:
                break
    return "".join(characters)


def square():
    mask = np.zeros((4, 6), dtype=bool)
    mask[1:3, 2:5] = True
    return mask


@pytest.mark.parametrize(
    "segmentation",
    [
        runs_of_mask(square()),
        {"size": [4, 6], "counts": packed(runs_of_mask(square())["counts"])},
        {"size": [4, 6], "counts": packed(runs_of_mask(square())["counts"]).encode()},
        json.dumps(runs_of_mask(square())),
        [[2.0, 1.0, 4.0, 1.0, 4.0, 2.0, 2.0, 2.0]],
        [[2, 1, 4, 1, 4, 2, 2, 2]],
        [[2.0, 1.0, 3.0, 1.0, 3.0, 2.0, 2.0, 2.0], [3.0, 1.0, 4.0, 1.0, 4.0, 2.0, 3.0, 2.0]],
    ],
)
def test_each_form_of_a_mask_is_read(segmentation):
    assert np.array_equal(mask_of(segmentation, SIZE), square())


@given(st.lists(st.integers(0, 5000), min_size=1, max_size=20))
def test_packed_run_lengths_come_back(counts):
    assert unpacked(packed(counts)) == counts


def test_a_known_string_is_that_of_the_cocoapi():
    # a row of ten pixels, the middle four inside: runs 3, 4, 3
    assert unpacked("343") == [3, 4, 3]
    # 40 is 8 and a 1 that follows: 8 + 32 + 48 = 'X', 1 + 48 = '1'
    assert unpacked("X1") == [40]


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        (None, "expected polygons or run lengths, got None"),
        ([], "expected polygons or run lengths"),
        ([[1.0, 2.0, 3.0, 4.0]], "expected polygons or run lengths"),
        ([["a"] * 6], "expected polygons or run lengths"),
        ("{", "expected polygons or run lengths"),
        ({"size": [4, 6], "counts": [1, 2]}, "region.mask: expected runs over 4 x 6 pixels"),
        ({"size": [6, 4], "counts": [24]}, "expected 6 x 4 pixels, got a mask of 4 x 6"),
        ({"size": [4, 6], "counts": "X"}, "expected whole run lengths"),
    ],
)
def test_what_is_no_mask_of_the_picture_is_refused(segmentation, message):
    with pytest.raises(InputError, match=message):
        mask_of(segmentation, SIZE)
