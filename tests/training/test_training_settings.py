"""Settings of a stage."""

import pytest

from mmembed.errors import InputError
from mmembed.settings import read_settings
from mmembed.training.settings import Stage, Validation


def test_a_stage_without_steps_is_refused():
    with pytest.raises(InputError, match=r"stage\.steps: expected at least 1, got 0; leave the stage out instead"):
        Stage({}, 0)


def test_arithmetic_that_scales_the_loss_is_refused():
    with pytest.raises(InputError, match=r"stage: precision: expected one of .*, got '16-mixed'"):
        read_settings(Stage, {"mixture": {}, "steps": 1, "precision": "16-mixed"}, where="stage")


def test_the_best_weights_need_a_validation():
    with pytest.raises(InputError, match=r"stage\.finish: expected a validation to be best at, got none"):
        Stage({}, 1, finish="best")
    assert Stage({}, 1, finish="best", validation=Validation()).finish == "best"
