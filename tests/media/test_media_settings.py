import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmembed.errors import InputError
from mmembed.media.settings import AllFrames, FpsFrames, MediaSettings, SegmentMiddles, Stills, UniformFrames

totals, counts = st.integers(1, 5000), st.integers(1, 200)


@pytest.mark.parametrize(
    ("stored", "picked"),
    [
        (64, [0, 9, 18, 27, 36, 45, 54, 63]),
        (10, [0, 1, 2, 3, 5, 6, 7, 9]),
        (5, [0, 1, 2, 3, 4]),
        (8, [0, 1, 2, 3, 4, 5, 6, 7]),
        (1, [0]),
    ],
)
def test_eight_uniform_frames_are_the_published_ones(stored, picked):
    assert UniformFrames().indices(stored, fps=25.0) == picked


@given(total=totals, wanted=counts)
def test_uniform_frames_equal_numpys_truncated_linspace(total, wanted):
    twin = np.linspace(0, total - 1, wanted, dtype=int).tolist() if wanted <= total else list(range(total))

    assert UniformFrames(wanted).indices(total, fps=25.0) == twin


@given(total=totals, fps=st.floats(1, 120), wanted_fps=st.floats(0.1, 30), least=st.integers(1, 8), more=counts)
def test_fps_frames_equal_the_rounded_linspace_of_the_qwen3_vl_processor(total, fps, wanted_fps, least, more):
    most = least + more
    count = min(max(int(total / fps * wanted_fps), least), most, total)
    twin = np.linspace(0, total - 1, count).round().astype(int).tolist()

    assert FpsFrames(wanted_fps, least, most).indices(total, fps) == twin


def test_fps_frames_follow_the_duration_within_their_bounds():
    sampling = FpsFrames(fps=2.0, min_frames=4, max_frames=10)

    counted = [len(sampling.indices(total, fps=10.0)) for total in (3, 10, 40, 500)]

    assert counted == [3, 4, 8, 10]


def test_fps_frames_may_be_cut_to_a_multiple_where_the_clip_has_as_many():
    sampling = FpsFrames(fps=1.0, min_frames=4, max_frames=64, multiple=2)

    counted = [len(sampling.indices(total, fps=10.0)) for total in (1, 2, 3, 4, 57, 79, 5000)]

    assert counted == [1, 2, 2, 4, 4, 6, 64]


def test_segment_middles_stand_in_the_middle_of_equal_segments():
    assert SegmentMiddles(4).indices(40, fps=25.0) == [5, 15, 25, 35]
    assert SegmentMiddles(1).indices(9, fps=25.0) == [4]
    assert SegmentMiddles(8).indices(3, fps=25.0) == [0, 1, 2]


def test_all_frames_are_all():
    assert AllFrames().indices(4, fps=25.0) == [0, 1, 2, 3]


@given(total=totals, wanted=counts, fps=st.floats(1, 120))
def test_every_rule_gives_ascending_distinct_frames_of_the_clip(total, wanted, fps):
    for sampling in (UniformFrames(wanted), SegmentMiddles(wanted), FpsFrames(2.0, 1, wanted), AllFrames()):
        picked = sampling.indices(total, fps)

        assert picked
        assert sorted(set(picked)) == picked
        assert 0 <= picked[0] <= picked[-1] < total


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: UniformFrames(0), r"media\.sampling\.num_frames: expected at least 1, got 0"),
        (lambda: SegmentMiddles(-2), r"media\.sampling\.num_frames: expected at least 1, got -2"),
        (lambda: FpsFrames(fps=0.0), r"media\.sampling\.fps: expected more than 0, got 0\.0"),
        (lambda: FpsFrames(fps=float("nan")), r"media\.sampling\.fps: expected more than 0, got nan"),
        (lambda: FpsFrames(multiple=0), r"media\.sampling\.multiple: expected at least 1, got 0"),
        (lambda: Stills(fps=0.0), r"media\.stills\.fps: expected more than 0, got 0\.0"),
        (lambda: Stills(multiple=0), r"media\.stills\.multiple: expected at least 1, got 0"),
        (lambda: FpsFrames(min_frames=0), r"media\.sampling\.min_frames: expected at least 1, got 0"),
        (lambda: FpsFrames(min_frames=9, max_frames=8), r"media\.sampling\.max_frames: expected at least 9, got 8"),
        (lambda: MediaSettings(alpha="wite"), r"media\.alpha: .*drop, white, got 'wite'; did you mean 'white'"),
        (lambda: MediaSettings(reader="pyaw"), r"media\.reader: .*got 'pyaw'; did you mean 'pyav'"),
        (lambda: MediaSettings(draft_pixels=0), r"media\.draft_pixels: expected at least 1, got 0"),
        (lambda: MediaSettings(max_image_megapixels=0.0), r"max_image_megapixels: expected more than 0 .*got 0\.0"),
        (lambda: MediaSettings(max_image_megapixels=500.0), r"max_image_megapixels: .*at most 179.*got 500\.0"),
    ],
)
def test_impossible_settings_are_refused_by_name_and_value(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_settings_import_no_torch_and_no_decoder():
    heavy = "{'torch', 'av', 'numpy', 'PIL', 'pypdfium2'}"
    code = f"import sys, mmembed.media.settings; print(sorted({heavy} & set(sys.modules)))"

    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert found.stdout.strip() == "[]"
