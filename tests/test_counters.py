"""Work counters."""

import pytest

from mmembed.counters import count, counting


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
