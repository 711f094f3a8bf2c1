"""Which cells of a map a region is made of, against torchvision and against counting."""

import math

import numpy as np
import pytest
import torch
from torchvision.ops import roi_align

from mmembed import Region
from mmembed.errors import InputError
from mmembed.models.region_encoders.geometry import (
    CODE_WIDTH,
    WHOLE,
    bins,
    box_edges,
    cell_edges,
    coverage,
    encode_places,
    mask_of,
    point_box,
)
from mmembed.models.region_prompts import RegionPrompt

# inside, tiny, over edges, beyond the map, and the whole map; x0 y0 x1 y1 in cells of a map of 13 x 9
BOXES = [(1.3, 0.7, 9.9, 8.2), (4.1, 4.2, 4.3, 4.5), (-0.6, -0.9, 3.0, 3.0), (10.0, 6.0, 14.5, 11.0),
         (14.5, 2.0, 20.0, 5.0), (0.0, 0.0, 13.0, 9.0)]  # fmt: skip


@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize("size", [1, 3, 7])
def test_bins_are_torchvisions_aligned_roi_align(box, size):
    features = torch.randn(1, 5, 9, 13, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x0, y0, x1, y1 = box

    rows, columns = bins(y0, y1, size, 9), bins(x0, x1, size, 13)
    found = np.einsum("ay,bx,cyx->cab", rows, columns, features[0].numpy())

    # torchvision chooses as many samples to a bin as cells, or takes one number for both sides
    down, across = (max(2, math.ceil(length / size)) for length in (y1 - y0, x1 - x0))
    expected = _roi_align(features, box, size, down, across)
    assert np.abs(found - expected.numpy()).max() < 1e-9


def _roi_align(features, box, size, down, across):
    """Torchvision's, sampled otherwise in height than in width: means of the samples of a finer one."""
    x0, y0, x1, y1 = box
    if down == across:
        return roi_align(features, [features.new_tensor([box])], size, 1.0, down, aligned=True)[0]
    samples = features.new_empty(features.shape[1], size * down, size * across)
    # every sample is the one of a box of its own
    high, wide = (y1 - y0) / (size * down), (x1 - x0) / (size * across)
    for i in range(size * down):
        for j in range(size * across):
            one = (x0 + j * wide, y0 + i * high, x0 + (j + 1) * wide, y0 + (i + 1) * high)
            samples[:, i, j] = roi_align(features, [features.new_tensor([one])], 1, 1.0, 1, aligned=True)[0, :, 0, 0]
    return samples.unflatten(2, (size, across)).unflatten(1, (size, down)).mean((2, 4))


def test_a_bin_within_the_map_has_weights_that_sum_to_one():
    assert np.allclose(bins(0.0, 9.0, 4, 9).sum(1), 1)
    assert np.allclose(bins(3.2, 3.3, 2, 9).sum(1), 1)


def test_every_cell_under_a_bin_counts_however_large_it_is():
    assert (bins(0.0, 40.0, 2, 40)[0, :20] > 0.9 / 20).all()


def test_coverage_is_what_counting_parts_of_pixels_finds():
    mask = np.random.default_rng(0).random((12, 18)) > 0.6
    frame = (0.4, -1.3, 6.1, 4.9)
    fine = 40

    found = coverage(mask, cell_edges(frame, 5, 7))

    for i in range(5):
        for j in range(7):
            hits = 0
            for a in range(fine):
                for b in range(fine):
                    y = (i + (a + 0.5) / fine - frame[1]) / (frame[3] - frame[1]) * 12
                    x = (j + (b + 0.5) / fine - frame[0]) / (frame[2] - frame[0]) * 18
                    hits += 0 <= y < 12 and 0 <= x < 18 and mask[int(y), int(x)]
            assert found[i, j] == pytest.approx(hits / fine**2, abs=0.03)


def test_coverage_is_exact_where_cells_are_whole_pixels():
    mask = np.random.default_rng(1).random((8, 12)) > 0.5

    found = coverage(mask, cell_edges((0, 0, 6, 4), 4, 6))

    assert np.allclose(found, mask.reshape(4, 2, 6, 2).mean((1, 3)))


def test_a_full_mask_covers_what_the_whole_picture_does():
    for frame in ((0, 0, 7, 5), (0.3, -2.2, 9.1, 5.5), (1.0, 1.5, 5.0, 3.5)):
        edges = cell_edges(frame, 5, 7)

        assert np.allclose(coverage(np.ones((31, 17), dtype=bool), edges), coverage(WHOLE, edges), atol=1e-12)


def test_a_box_covers_what_its_mask_does():
    mask = np.zeros((10, 20), dtype=bool)
    mask[2:7, 5:15] = True
    edges = cell_edges((0, 0, 7, 3), 3, 7)

    assert np.allclose(coverage(mask, edges), coverage((0.25, 0.2, 0.75, 0.7), edges))


def test_cells_of_a_box_are_edged_in_order():
    rows, columns = box_edges((0.2, 0.1, 0.6, 0.9), 2, 4)

    assert np.allclose(rows, [0.1, 0.5, 0.9])
    assert np.allclose(columns, [0.2, 0.3, 0.4, 0.5, 0.6])


def test_the_box_of_a_point_is_a_square_of_pixels_within_the_picture():
    assert point_box((0.5, 0.5, 1), 0.2, (200, 100)) == pytest.approx((0.45, 0.4, 0.55, 0.6))
    assert point_box((0.0, 1.0, 1), 0.2, (200, 100)) == pytest.approx((0.0, 0.9, 0.05, 1.0))


def of(region, size=(20, 10)):
    return mask_of(RegionPrompt.of(region, size), 0.4)


def test_points_are_a_mask_of_squares_without_those_outside():
    mask = of(Region(points=((5, 5, 1), (15, 5, 1), (6, 6, 0))))

    expected = np.zeros((10, 20), dtype=bool)
    expected[3:7, 3:7] = expected[3:7, 13:17] = True
    expected[4:8, 4:8] = False
    assert np.array_equal(mask, expected)


def test_only_points_outside_mean_all_the_rest():
    mask = of(Region(points=((5, 5, 0),)))

    assert not mask[3:7, 3:7].any() and mask.sum() == 200 - 16


def test_a_box_or_mask_is_its_own_mask():
    drawn = np.zeros((10, 20), dtype=np.uint8)
    drawn[4, 7] = 1

    assert np.array_equal(of(Region(mask=drawn)), drawn == 1)
    assert of(Region(box=(2, 3, 8, 9))).nonzero()[0].tolist() == sorted([*range(3, 9)] * 6)


def test_points_that_leave_nothing_are_refused():
    with pytest.raises(InputError, match=r"region\.points: expected a point inside whose square is not all under"):
        of(Region(points=((5, 5, 1), (5, 5, 0))))


def test_places_a_hundredth_of_the_picture_apart_are_told_apart():
    places = torch.rand(50, 4, generator=torch.Generator().manual_seed(0))
    codes = encode_places(places)

    assert codes.shape == (50, CODE_WIDTH)
    assert codes.abs().max() <= 1
    for number in range(4):
        moved = places.clone()
        moved[:, number] += 0.01
        change = (encode_places(moved) - codes).view(50, 4, -1)
        assert (change[:, number].norm(dim=-1) > 1).all()
        assert change.norm(dim=-1).sum(1).allclose(change[:, number].norm(dim=-1), atol=1e-5)
