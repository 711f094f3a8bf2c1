"""Token positions against the library's own routine."""

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from packaging.version import Version

from mmembed.models.positions import Run, mrope_positions, sequential_positions

grids = st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4))
words = st.builds(lambda n: (n, None, False), st.integers(1, 4))
media = st.builds(lambda g, video: (None, g if video else (1, *g[1:]), video), grids, st.booleans())
# words stand between media: the library takes neighbouring pictures for one
rows = st.lists(st.tuples(words, media), min_size=1, max_size=3)


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_5_vl"])
def test_positions_of_random_rows_equal_get_rope_index(family, scratch_embedder):
    model = scratch_embedder(family).backbone.model
    rate = getattr(model.config.vision_config, "tokens_per_second", None)
    if rate and Version(transformers.__version__) < Version("5.23"):
        pytest.skip("older releases of transformers leave out the seconds between frames")

    @settings(max_examples=60, deadline=None)
    @given(row=rows, seconds=st.sampled_from([0.5, 1.0, 1.3, 4.0]))
    def check(row, seconds):
        runs, types, images, videos = [], [], [], []
        for pair in row:
            for length, grid, is_video in pair:
                size = length or grid[0] * grid[1] * grid[2]
                types += [0 if grid is None else 2 if is_video else 1] * size
                runs.append(Run(size, grid, rate * seconds if rate and is_video else 1.0))
                if grid is not None:
                    (videos if is_video else images).append((grid[0], grid[1] * 2, grid[2] * 2))
        given_ids = torch.zeros(1, len(types), dtype=torch.long)
        theirs, _ = model.get_rope_index(
            given_ids,
            torch.tensor([types]),
            image_grid_thw=torch.tensor(images) if images else None,
            video_grid_thw=torch.tensor(videos) if videos else None,
            second_per_grid_ts=torch.tensor([seconds] * len(videos)) if videos else None,
        )
        assert mrope_positions(runs).tolist() == theirs[:, 0].tolist()

    check()


def test_words_count_on_from_the_longer_side_of_a_picture():
    positions = mrope_positions([Run(2), Run(6, (1, 2, 3)), Run(1)])

    assert positions.tolist() == [
        [0, 1, 2, 2, 2, 2, 2, 2, 5],
        [0, 1, 2, 2, 2, 3, 3, 3, 5],
        [0, 1, 2, 3, 4, 2, 3, 4, 5],
    ]


def test_time_steps_are_cut_to_whole_positions():
    assert mrope_positions([Run(3, (3, 1, 1), 1.7)])[0].tolist() == [0, 1, 3]


def test_sequential_positions_are_one_counter():
    assert sequential_positions(4).tolist() == [[0, 1, 2, 3]] * 3
