"""Settings of the data refuse values that mean nothing."""

import subprocess
import sys

import pytest

from mmembed.data.settings import Sampling, Source
from mmembed.errors import InputError
from mmembed.losses.settings import SourceRules


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
def test_a_weight_must_be_a_share(weight):
    with pytest.raises(InputError, match=rf"source\.weight: expected a positive number, or 0, got {weight}"):
        Source("t.jsonl", weight=weight)


def test_a_weight_of_zero_switches_a_source_off():
    assert Source("t.jsonl", weight=0).weight == 0


@pytest.mark.parametrize(("name", "least"), [("limit", 1), ("max_positives", 1), ("max_negatives", 0)])
def test_bounds_of_a_source_must_leave_something(name, least):
    assert getattr(Source("t.jsonl", **{name: least}), name) == least
    with pytest.raises(InputError, match=rf"source\.{name}: expected {least} or more, got {least - 1}"):
        Source("t.jsonl", **{name: least - 1})


def test_a_source_follows_the_rules_of_the_objective_unless_told():
    assert Source("t.jsonl").loss == SourceRules(temperature=None, in_batch=None, mask_classes=None)


def test_a_block_may_have_any_size():
    assert Sampling(batch_size=64, block_size=24).block_size == 24
    assert Sampling(batch_size=64, block_size=640).block_size == 640


@pytest.mark.parametrize("name", ["batch_size", "block_size", "window", "hold"])
def test_sizes_must_be_positive(name):
    with pytest.raises(InputError, match=f"sampling.{name}: expected 1 or more, got 0"):
        Sampling(**{name: 0})


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_bad_rows_are_a_share(share):
    with pytest.raises(InputError, match=rf"sampling\.max_bad: expected 0 to 1, got {share}"):
        Sampling(max_bad=share)


@pytest.mark.parametrize(
    ("regime", "block_size", "hold"),
    [("recipe", 64, 1), ("two_sources", 512, 1), ("held_sources", 64, 4), ("one_source", 1024, 4)],
)
def test_a_regime_is_written_out_as_blocks_and_hold(regime, block_size, hold):
    # the batches of the published command: 128 pairs on each of 8 GPUs, blocks of 64
    resolved = Sampling(1024, 64, regime=regime, shares="rows").resolved

    assert resolved == Sampling(1024, block_size, hold=hold, shares="rows")
    assert resolved.resolved == resolved


def test_a_recipe_may_hold_its_sources():
    assert Sampling(hold=3).resolved == Sampling(hold=3)


def test_a_regime_and_a_hold_contradict_each_other():
    with pytest.raises(
        InputError, match=r"sampling\.hold: expected 1 beside regime one_source, .*, got 2; leave out one"
    ):
        Sampling(regime="one_source", hold=2)


def test_an_odd_batch_has_no_halves():
    with pytest.raises(InputError, match=r"sampling\.batch_size: expected an even number .*, got 63; for example 64"):
        Sampling(batch_size=63, regime="two_sources")


def test_settings_load_without_torch():
    code = "import sys, mmembed.data.settings; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
