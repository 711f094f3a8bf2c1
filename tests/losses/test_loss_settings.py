"""Settings of the objective: read, and refused in words."""

import math

import pytest

from mmembed.errors import InputError
from mmembed.losses.settings import Contrastive, LearnedTemperature, ObjectiveSettings, SourceRules
from mmembed.settings import dump_settings, read_settings

NAN = math.nan


def test_settings_are_read_from_plain_values():
    values = {
        "temperature": 0.05,
        "learn": {"parameter": "raw"},
        "directions": [1, 1],
        "in_batch": "own",
        "margin": 0.1,
    }

    read = read_settings(Contrastive, values)

    expected = Contrastive(0.05, LearnedTemperature("raw"), (1.0, 1.0), in_batch="own", margin=0.1)
    assert read == expected
    assert read_settings(Contrastive, dump_settings(read)["init_args"]) == expected


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"temperature": 0.0}, "temperature: expected more than 0, got 0.0; VLM2Vec uses 0.02"),
        ({"temperature": NAN}, "temperature: expected more than 0, got nan; VLM2Vec uses 0.02"),
        (
            {"directions": (0.0, 0.0)},
            r"directions: expected two weights, none below 0 and not both 0, got \(0.0, 0.0\)",
        ),
        (
            {"directions": (1.0, -0.5)},
            r"directions: expected two weights, none below 0 and not both 0, got \(1.0, -0.5\)",
        ),
        ({"directions": (1.0, NAN)}, "directions: expected two weights"),
        ({"directions": (math.inf, 1.0)}, "directions: expected two weights"),
        ({"margin": -0.1}, "margin: expected 0 or more, got -0.1; leave it out to mask nothing"),
        ({"margin": NAN}, "margin: expected 0 or more, got nan"),
        ({"block_rows": 0}, "block_rows: expected at least 1, got 0; 1024 is the default"),
        (
            {"temperature": 2.0, "learn": LearnedTemperature()},
            "temperature: expected 0.005 to 1.0, got 2.0; begin inside learn.low and learn.high",
        ),
    ],
)
def test_values_that_cannot_be_used_are_refused(values, message):
    with pytest.raises(InputError, match=message):
        Contrastive(**values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"low": 0.5, "high": 0.5}, "learn: expected 0 < low < high, got low 0.5, high 0.5"),
        ({"low": 0.0}, "learn: expected 0 < low < high, got low 0.0, high 1.0"),
        ({"lr": 0.0}, "learn.lr: expected more than 0, got 0.0; leave it out for the optimiser's"),
    ],
)
def test_what_cannot_be_learned_is_refused(values, message):
    with pytest.raises(InputError, match=message):
        LearnedTemperature(**values)


def test_the_rules_of_a_source_are_checked():
    with pytest.raises(InputError, match="temperature: expected more than 0, got -1"):
        SourceRules(temperature=-1)

    with pytest.raises(InputError, match=r"image: temperature: expected 0.005 to 1.0, got 3.0; begin inside"):
        Contrastive(learn=LearnedTemperature()).build({"image": SourceRules(temperature=3.0)})


def test_the_abstract_objective_builds_nothing():
    with pytest.raises(NotImplementedError):
        ObjectiveSettings().build()
