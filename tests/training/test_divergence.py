"""A loss that became clearly worse than it was stops the run, and no other does."""

import json
from statistics import fmean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmembed.errors import DivergenceError, InputError
from mmembed.training.divergence import Divergence
from mmembed.training.reports import StepReport

LOSSES = st.lists(st.floats(0, 20), max_size=40)


def reported(step, loss, hardest=()):
    return StepReport(step, {"loss": loss}, items=2, tokens=8, padded=9, sources={"a": 1}, hardest=hardest)


def stopped_at(watched, losses, first=1):
    """The step that stops, or None."""
    for step, loss in enumerate(losses, first):
        try:
            watched.see(reported(step, loss))
        except DivergenceError:
            return step
    return None


def stopped_by_the_rule(losses, ratio, window):
    """The slow twin: both means anew at each step."""
    for step in range(window, len(losses) + 1):
        if fmean(losses[step - window : step]) > ratio * fmean(losses[:window]) + 1:
            return step
    return None


@settings(deadline=None)
@given(LOSSES, st.floats(1, 5), st.integers(1, 8))
def test_the_step_that_stops_is_the_first_whose_window_is_worse(losses, ratio, window):
    assert stopped_at(Divergence(ratio, window), losses) == stopped_by_the_rule(losses, ratio, window)


@settings(deadline=None)
@given(LOSSES, st.integers(0, 40))
def test_a_resumed_run_stops_where_the_whole_one_does(losses, cut):
    whole = stopped_at(Divergence(2.0, 4), losses)
    before, after = Divergence(2.0, 4), Divergence(2.0, 4)
    stopped = stopped_at(before, losses[:cut])
    if stopped is None:
        after.load(json.loads(json.dumps(before.state())))
        stopped = stopped_at(after, losses[cut:], first=cut + 1)
    assert stopped == whole


def test_a_report_that_still_stands_is_not_counted_again():
    watched, once = Divergence(2.0, 4), Divergence(2.0, 4)
    for step in range(1, 4):
        once.see(reported(step, 1.0))
        for _ in range(3):
            watched.see(reported(step, 1.0))
    assert watched.state() == once.state()


def test_without_a_ratio_nothing_stops():
    assert stopped_at(Divergence(None, 2), [0.1, 0.1, 1e6, 1e6]) is None


def test_the_error_names_step_means_and_rows():
    watched = Divergence(3.0, window=2)
    for step, loss in enumerate([1.0, 1.5, 4.0], 1):
        watched.see(reported(step, loss))
    message = (
        r"step 4: expected a mean loss over 2 steps of at most 4\.75 \(3 times 1\.25, that of the first 2 steps, and 1 "
        r"more\), got 5; hardest rows of this step: maps:q7 \(9\.5\), maps:q1 \(8\); lower the learning rate, look at "
        r"these rows, or set diverged to null to go on"
    )
    with pytest.raises(DivergenceError, match=message):
        watched.see(reported(4, 6.0, hardest=(("maps:q7", 9.5), ("maps:q1", 8.0))))


@pytest.mark.parametrize("ratio", [0.5, -1.0, float("nan")])
def test_a_ratio_that_would_stop_a_run_that_learns_is_refused(ratio):
    with pytest.raises(InputError, match=r"diverged: expected at least 1, got .*; set it to null to never stop"):
        Divergence(ratio)
