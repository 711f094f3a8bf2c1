"""Settings of a stage."""

import pytest

from mmembed.errors import InputError
from mmembed.training.settings import Stage, Validation


def test_a_stage_without_steps_is_refused():
    with pytest.raises(InputError, match=r"stage\.steps: expected at least 1, got 0; leave the stage out instead"):
        Stage({}, 0)


def test_the_best_weights_need_a_validation():
    with pytest.raises(InputError, match=r"stage\.finish: expected a validation to be best at, got none"):
        Stage({}, 1, finish="best")
    assert Stage({}, 1, finish="best", validation=Validation()).finish == "best"
