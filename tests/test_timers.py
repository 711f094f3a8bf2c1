"""Parts of the work are timed only where asked; no seconds are asserted but the order of a sleep."""

import time

import pytest

from mmembed.timers import span, timing
from tests.cases import draw, small_embedder

SLEEP = 0.05


def test_a_part_inside_another_is_not_counted_in_the_outer_one():
    with timing() as seconds, span("outer"):
        with span("inner"):
            time.sleep(2 * SLEEP)
        time.sleep(SLEEP)

    assert list(seconds) == ["outer", "inner"]
    assert seconds["inner"] >= 2 * SLEEP
    assert SLEEP <= seconds["outer"] < 2 * SLEEP


def test_blocks_nest_and_what_is_outside_of_one_is_not_its():
    with timing() as whole:
        with span("part"):
            time.sleep(SLEEP)
        with timing() as later, span("part"):
            time.sleep(SLEEP)

    assert whole["part"] >= 2 * SLEEP
    assert SLEEP <= later["part"] < whole["part"]


def test_an_error_ends_its_part():
    with timing() as seconds:
        with pytest.raises(ValueError), span("broken"):
            raise ValueError
        with span("next"):
            pass

    assert list(seconds) == ["broken", "next"]


def test_without_a_block_nothing_is_measured():
    with span("unseen"):
        pass

    with timing() as seconds:
        pass

    assert seconds == {}


def test_encoding_tells_its_parts():
    model = small_embedder()

    with timing() as seconds:
        model.encode([{"image": draw(56, 56), "text": "a red circle"}])

    assert set(seconds) == {"decode", "preprocess", "vision", "language"}
    assert all(value > 0 for value in seconds.values())
