"""Settings of the data refuse values that mean nothing."""

import subprocess
import sys

import pytest

from mmembed.data.settings import Sampling, Source
from mmembed.errors import InputError


@pytest.mark.parametrize("weight", [0, -1.0, float("nan"), float("inf")])
def test_a_weight_must_be_positive(weight):
    with pytest.raises(InputError, match=f"source.weight: expected a positive number, got {weight}"):
        Source("t.jsonl", weight=weight)


def test_a_limit_must_leave_a_row():
    with pytest.raises(InputError, match=r"source\.limit: expected 1 or more, got 0"):
        Source("t.jsonl", limit=0)


def test_blocks_must_fill_the_batch():
    with pytest.raises(
        InputError, match=r"sampling\.block_size: expected a divisor of batch_size 64, got 24; .*example 8"
    ):
        Sampling(batch_size=64, block_size=24)


@pytest.mark.parametrize("name", ["batch_size", "block_size", "window"])
def test_sizes_must_be_positive(name):
    with pytest.raises(InputError, match=f"sampling.{name}: expected 1 or more, got 0"):
        Sampling(**{name: 0})


def test_settings_load_without_torch():
    code = "import sys, mmembed.data.settings; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
