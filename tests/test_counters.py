"""Work counters."""

import pytest

from mmembed.counters import count, counting, peak


def test_work_inside_the_block_is_counted():
    count("tower_forwards", 5)
    with counting() as work:
        count("tower_forwards")
        count("tower_forwards", 3)
        count("language_rows", 2)
    count("tower_forwards", 5)

    assert work == {"tower_forwards": 4, "language_rows": 2}
    assert work["never_done"] == 0


def test_nested_blocks_with_equal_counts_are_kept_apart():
    with counting() as outer:
        with counting() as inner:
            count("a")
        count("a")

    assert (inner["a"], outer["a"]) == (1, 2)


def test_a_failed_block_stops_counting():
    with pytest.raises(RuntimeError), counting() as work:
        raise RuntimeError
    count("a")

    assert work["a"] == 0


def test_a_peak_is_the_largest_amount_inside_each_block():
    peak("bytes", 9)
    with counting() as outer:
        peak("bytes", 3)
        with counting() as inner:
            peak("bytes", 2)
            peak("bytes", 1)

    assert (inner["bytes"], outer["bytes"]) == (2, 3)
