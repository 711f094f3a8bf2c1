"""Pictures to tiles: grids, whole tiles for any size, and views put together again."""

import numpy as np
import PIL.Image
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmembed.models.backbones.phi3_v.pixels import WHITE, columns_of, cut, fit, whole_view
from mmembed.models.settings import Phi3V, Scratch


@pytest.mark.parametrize(
    ("size", "num_crops", "grid"),
    [
        ((224, 224), 16, (4, 4)),
        ((640, 480), 16, (3, 4)),
        ((480, 640), 4, (2, 2)),
        ((1000, 100), 4, (1, 4)),
        ((100, 1000), 4, (4, 1)),
        ((800, 300), 16, (2, 5)),
        ((300, 20), 1, (1, 1)),
        ((20000, 1), 16, (1, 16)),
    ],
)
def test_a_grid_is_as_wide_as_the_number_of_tiles_allows(size, num_crops, grid):
    picture = fit(PIL.Image.new("RGB", size), num_crops, 336, "pil")

    assert (picture.shape[0] // 336, picture.shape[1] // 336) == grid


@settings(max_examples=200, deadline=None)
@given(ratio=st.floats(1, 300), num_crops=st.integers(1, 60))
def test_no_more_columns_would_fit(ratio, num_crops):
    columns = 1
    while (columns + 1) * int(np.ceil((columns + 1) / ratio)) <= num_crops:
        columns += 1

    assert columns_of(ratio, num_crops) == columns


@settings(max_examples=60, deadline=None)
@given(
    width=st.integers(1, 90), height=st.integers(1, 90), num_crops=st.integers(1, 9),
    backend=st.sampled_from(["pil", "torchvision"]),
)  # fmt: skip
def test_any_picture_becomes_whole_tiles_no_more_than_allowed(width, height, num_crops, backend):
    picture = PIL.Image.new("RGB", (width, height), (10, 20, 30))

    whole = fit(picture, num_crops, 28, backend)
    tiles, grid = cut(whole, 28)

    assert whole.shape[0] % 28 == whole.shape[1] % 28 == 0
    assert tiles.shape == (grid[1] * grid[2], 3, 1, 28, 28)
    assert 1 <= len(tiles) <= num_crops
    is_picture = (whole == [10, 20, 30]).all(-1)
    assert is_picture.any()
    assert (whole[~is_picture] == WHITE).all()


def test_the_shorter_side_is_padded_with_white_half_before_and_half_after():
    wide = fit(PIL.Image.new("RGB", (90, 40)), 3, 30, "pil")
    tall = fit(PIL.Image.new("RGB", (40, 90)), 3, 30, "pil")

    # one row of three tiles would not hold 40 of 90 lines, so one column less: 60 x 26
    assert wide.shape == (30, 60, 3)
    assert [int(line[0, 0]) for line in wide] == [WHITE] * 2 + [0] * 26 + [WHITE] * 2
    assert np.array_equal(tall, wide.transpose(1, 0, 2))


def test_a_tall_picture_is_treated_as_its_mirror_image_along_the_diagonal(picture):
    wide = picture(75, 40)

    tall = wide.transpose(PIL.Image.Transpose.TRANSPOSE)

    assert np.array_equal(fit(tall, 4, 28, "pil"), fit(wide, 4, 28, "pil").transpose(1, 0, 2))


def test_the_two_resizes_differ_by_a_few_grey_levels(picture):
    ours, theirs = (fit(picture(75, 40), 4, 28, backend).astype(int) for backend in ("pil", "torchvision"))

    assert 0 < np.abs(ours - theirs).max() <= 2


def test_tiles_are_cut_row_by_row():
    numbers = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)

    tiles, grid = cut(numbers, 2)

    assert grid == (1, 2, 3)
    for n in range(6):
        top, left = n // 3 * 2, n % 3 * 2
        assert tiles[n, :, 0].permute(1, 2, 0).tolist() == numbers[top : top + 2, left : left + 2].tolist()


def test_the_whole_view_shrinks_the_picture_that_the_tiles_make(picture):
    whole = torch.from_numpy(np.array(picture(84, 56))).permute(2, 0, 1).float()
    tiles, (_, rows, columns) = cut(np.array(picture(84, 56)), 28)

    view = whole_view(tiles[:, :, 0].float(), rows, columns)

    expected = torch.nn.functional.interpolate(whole[None], size=(28, 28), mode="bicubic")[0]
    assert torch.equal(view, expected)


@pytest.mark.parametrize("num_crops", [0, -4])
def test_no_tiles_at_all_are_refused(num_crops):
    with pytest.raises(ValueError, match=rf"num_crops: expected at least 1, got {num_crops}"):
        Phi3V(scratch=Scratch(), num_crops=num_crops)
