"""Pictures to patches, against transformers' processors and the published table."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as tv
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

from mmembed.models.backbones.qwen_vl.pixels import enlarge_tiny, patchify, resize, target_size
from mmembed.models.checkpoint import CLIP_MEAN, CLIP_STD

PUBLISHED = {"factor": 28, "min_pixels": 3136, "max_pixels": 1003520}


@pytest.mark.parametrize(
    ("size", "expected", "tokens"),
    [
        ((480, 640), (476, 644), 391),
        ((1344, 1344), (980, 980), 1225),
        ((1080, 1920), (728, 1316), 1222),
        ((30, 40), (56, 84), 6),
        ((20, 300), (308, 308), 121),
        ((56, 56), (56, 56), 4),
    ],
)
def test_published_sizes(size, expected, tokens):
    height, width = target_size(*size, **PUBLISHED)

    assert (height, width) == expected
    assert height * width // 28**2 == tokens


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((20, 300), (28, 308)),
        ((30, 6100), (28, 5600)),
        ((7, 9), (56, 84)),
        ((480, 640), (476, 644)),
        ((1, 1), (56, 56)),
    ],
)
def test_thin_pictures_may_become_strips_as_in_the_code_of_gme(size, expected):
    assert target_size(*size, **PUBLISHED, thin="strip") == expected
    assert target_size(*size[::-1], **PUBLISHED, thin="strip") == expected[::-1]


@settings(max_examples=300, deadline=None)
@given(
    height=st.integers(32, 3000), width=st.integers(32, 3000), factor=st.sampled_from([28, 32]),
    min_pixels=st.integers(1024, 60000), max_pixels=st.integers(60000, 2_000_000),
)  # fmt: skip
def test_ordinary_sizes_equal_smart_resize(height, width, factor, min_pixels, max_pixels):
    assume(max(height, width) / min(height, width) <= 200)
    expected = smart_resize(height, width, factor, min_pixels, max_pixels)

    assert target_size(height, width, factor, min_pixels, max_pixels) == expected


@settings(max_examples=200, deadline=None)
@given(height=st.integers(1, 40), width=st.integers(1, 20000))
def test_any_size_becomes_whole_tokens_within_the_budget(height, width):
    rows, columns = target_size(height, width, **PUBLISHED)

    assert rows % 28 == 0
    assert columns % 28 == 0
    assert 28 * 28 <= rows * columns <= 1003520


@pytest.mark.parametrize(("size", "expected"), [((300, 20), (56, 56)), ((27, 28), (56, 56)), ((28, 28), (28, 28))])
def test_tiny_pictures_become_a_square(size, expected, picture):
    assert enlarge_tiny(picture(*size), 28).size == expected


def test_the_square_can_be_turned_off(picture):
    assert enlarge_tiny(picture(300, 20), 0).size == (300, 20)


@pytest.mark.parametrize("size", [(64, 900), (333, 217), (56, 84)])
def test_pil_patches_equal_the_librarys_pil_processor(size, picture):
    drawn = picture(*size)
    theirs = Qwen2VLImageProcessorPil(size={"shortest_edge": 3136, "longest_edge": 1003520})(drawn, return_tensors="pt")
    height, width = target_size(drawn.height, drawn.width, **PUBLISHED)

    patches, grid = patchify([resize(drawn, height, width, "pil")], patch=14, merge=2, temporal=2)

    mean, std = (torch.tensor(v)[:, None, None, None] for v in (CLIP_MEAN, CLIP_STD))
    ours = ((patches.float() / 255 - mean) / std).expand(-1, -1, 2, -1, -1).flatten(1)
    assert patches.dtype == torch.uint8
    assert [list(grid)] == theirs["image_grid_thw"].tolist()
    assert torch.allclose(ours, theirs["pixel_values"], atol=1e-6, rtol=0)


def test_the_two_resizes_are_near_but_not_equal_and_leave_a_fitting_picture_alone(picture):
    drawn = picture(100, 140)

    pil, tv = resize(drawn, 56, 84, "pil"), resize(drawn, 56, 84, "torchvision")

    assert pil.shape == tv.shape == (56, 84, 3)
    assert 0 < np.abs(pil.astype(int) - tv).max() <= 10
    for backend in ("pil", "torchvision"):
        assert np.array_equal(resize(drawn, 140, 100, backend), np.asarray(drawn))


def test_patches_lie_in_the_order_of_a_loop():
    frames = [np.random.default_rng(i).integers(0, 256, (8, 12, 3), dtype=np.uint8) for i in range(3)]
    padded = [*frames, frames[-1]]
    expected = []
    for t in (0, 2):
        for block_row in range(2):
            for block_column in range(3):
                for row in (2 * block_row, 2 * block_row + 1):
                    for column in (2 * block_column, 2 * block_column + 1):
                        cut = np.s_[row * 2 : row * 2 + 2, column * 2 : column * 2 + 2]
                        expected.append(np.stack([f[cut] for f in padded[t : t + 2]]).transpose(3, 0, 1, 2))

    patches, grid = patchify(frames, patch=2, merge=2, temporal=2)

    assert grid == (2, 4, 6)
    assert np.array_equal(patches.numpy(), np.stack(expected))


def test_a_resize_by_way_of_floats_is_that_of_torchvisions_older_functions(picture):
    given = picture(84, 56)
    pixels = torch.from_numpy(np.array(given)).permute(2, 0, 1)
    older = tv.resize(pixels, [320, 448], InterpolationMode.BICUBIC, antialias=True)

    assert torch.equal(torch.from_numpy(resize(given, 320, 448, "torchvision_float").copy()), older.permute(1, 2, 0))
