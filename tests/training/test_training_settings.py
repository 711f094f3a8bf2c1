"""Settings of a stage."""

import pytest

from mmembed.errors import InputError
from mmembed.settings import read_settings
from mmembed.training.settings import Optim, Stage, Validation


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


@pytest.mark.parametrize(
    ("where", "values"),
    [
        ("optim.clip_norm", {"optim": {"clip_norm": 0}}),
        ("optim.clip_norm", {"optim": {"clip_norm": -1}}),
        ("optim.betas", {"optim": {"betas": [0.9, 1]}}),
        ("optim.betas", {"optim": {"betas": [-0.1, 0.9]}}),
        ("optim.eps", {"optim": {"eps": 0}}),
        ("optim.weight_decay", {"optim": {"weight_decay": -0.1}}),
        ("optim.parts.visual.lr", {"optim": {"parts": {"visual": {"lr": 0}}}}),
        ("optim.parts.visual.weight_decay", {"optim": {"parts": {"visual": {"weight_decay": -0.1}}}}),
        ("optim.warmup_steps", {"optim": {"warmup_steps": -3}}),
        ("optim.accumulate", {"optim": {"accumulate": 0}}),
        ("optim.ema", {"optim": {"ema": 1}}),
        ("optim.ema", {"optim": {"ema": -0.1}}),
        ("chunks.rows", {"chunks": {"rows": 0}}),
        ("chunks.tokens", {"chunks": {"tokens": 0}}),
        ("chunks.padding", {"chunks": {"padding": -0.1}}),
        ("chunks.padding", {"chunks": {"padding": 1}}),
        ("chunks.keep_mb", {"chunks": {"keep_mb": -1}}),
        ("validation.rows", {"validation": {"rows": 0}}),
        ("validation.every", {"validation": {"every": 0}}),
        ("checkpoints.keep", {"checkpoints": {"keep": 0}}),
        ("stage.log_every", {"log_every": 0}),
        ("stage.workers", {"workers": -1}),
        ("stage.cache_mb", {"cache_mb": -1}),
        ("stage.diverged", {"diverged": 0.5}),
        ("precision", {"precision": "bf16-true"}),
    ],
)
def test_a_value_that_would_go_wrong_later_is_refused_when_it_is_read(where, values):
    with pytest.raises(InputError, match=where.replace(".", r"\.") + ": expected"):
        read_settings(Stage, {"mixture": {}, "steps": 1} | values, where="recipe")


def test_the_edges_are_accepted():
    optim = {"clip_norm": None, "betas": [0, 0], "weight_decay": 0, "warmup_steps": 0, "accumulate": 1, "ema": 0}
    chunks = {"rows": 1, "tokens": 1, "padding": 0, "keep_mb": 0}
    rest = {"validation": {"rows": 1, "every": 1}, "log_every": 1, "workers": 0, "cache_mb": 0, "diverged": 1}

    stage = read_settings(Stage, {"mixture": {}, "steps": 1, "optim": optim, "chunks": chunks} | rest, where="recipe")

    assert (stage.optim.ema, stage.chunks.keep_mb, stage.diverged) == (0, 0, 1)


def test_what_may_be_left_out_is_not_looked_at():
    chunks, rest = dict.fromkeys(("rows", "tokens", "padding")), dict.fromkeys(("validation", "diverged"))
    optim = {"clip_norm": None, "ema": None, "parts": {"visual": {"lr": None, "weight_decay": None}}}

    stage = read_settings(Stage, {"mixture": {}, "steps": 1, "optim": optim, "chunks": chunks} | rest, where="recipe")

    assert (stage.optim.clip_norm, stage.chunks.padding, stage.diverged) == (None, None, None)


@pytest.mark.parametrize(("accumulate", "ends"), [(1, [0, 1, 2, 3, 4, 5]), (2, [1, 3, 5]), (3, [2, 5])])
def test_a_step_ends_with_the_last_batch_it_accumulates(accumulate, ends):
    stage = Stage({}, 3, optim=Optim(accumulate=accumulate))

    assert [batch for batch in range(6) if stage.ends_step(batch)] == ends


@pytest.mark.parametrize(
    ("validation", "after"), [(None, []), (Validation(every=2), [2, 4]), (Validation(every=500), [5])]
)
def test_a_stage_validates_every_so_many_steps_and_a_short_one_at_its_end(validation, after):
    stage = Stage({}, 5, validation=validation)

    assert [step for step in range(1, 6) if stage.validates_after(step)] == after
