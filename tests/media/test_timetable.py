import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmembed.media.timetable import Timetable


def test_runs_group_frames_behind_the_keyframe_they_are_decoded_from():
    table = Timetable(times=(0, 10, 20, 30, 40, 50), keyframes=(0, 30))

    assert table.runs([5, 1, 3, 1]) == [(0, [1]), (30, [3, 5])]


def test_frames_before_the_first_keyframe_are_decoded_from_the_start():
    assert Timetable(times=(0, 10, 20), keyframes=(10,)).runs([0, 2]) == [(None, [0]), (10, [2])]


def test_frames_without_times_are_counted_from_the_start():
    table = Timetable(times=(), untimed=4)

    assert len(table) == 4
    assert table.runs([3, 0]) == [(None, [0, 3])]
    assert table.index(None, position=2) == 2


@pytest.mark.parametrize("time", [None, -5, 15, 99])
def test_a_frame_that_the_table_does_not_hold_has_no_index(time):
    assert Timetable(times=(0, 10, 20), keyframes=(0,)).index(time, position=0) == -1


@given(st.sets(st.integers(-1000, 1000), min_size=1, max_size=30), st.data())
def test_every_wanted_frame_is_in_one_run_and_not_before_its_keyframe(times, data):
    times = tuple(sorted(times))
    keyframes = tuple(sorted(data.draw(st.sets(st.sampled_from(times)))))
    wanted = data.draw(st.lists(st.integers(0, len(times) - 1), min_size=1))
    table = Timetable(times, keyframes)

    runs = table.runs(wanted)

    assert [index for _, run in runs for index in run] == sorted(set(wanted))
    assert all(table.index(times[index], position=-7) == index for index in wanted)
    for keyframe, run in runs:
        assert all(keyframe is None or keyframe <= times[index] for index in run)
        # no later keyframe would have served
        assert not any((keyframe is None or keyframe < other) and other <= times[run[0]] for other in keyframes)
