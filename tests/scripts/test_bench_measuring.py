"""What a measurement of scripts/bench.py is: equal outcomes, turns, memory and operations; no seconds are asserted."""

import mmap
import weakref

import pytest
import torch

from mmembed.errors import InputError
from scripts.benchmark.bench import Bench
from scripts.benchmark.flops import ceiling, counted, useful_flops
from scripts.benchmark.measuring import Comparison, Conditions, attempt, difference, measure, unmeasured
from scripts.benchmark.memory import peak_memory
from scripts.benchmark.sizes import SIZES

CPU = torch.device("cpu")


def test_what_is_no_number_is_not_equal():
    runs = []

    def ours():
        runs.append("ours")
        return torch.tensor([float("nan")])

    found = measure("made", Comparison(ours, lambda: torch.ones(1)), Conditions(3, 1e-5, 1e-5))

    assert found["error"].startswith("made: expected outcomes equal to 1e-05, got nan")
    assert found["difference"] is None
    assert runs == ["ours"]


def test_a_gradient_has_a_tolerance_of_its_own():
    def work(gradient):
        return Comparison(lambda: torch.tensor([1.0, 1.2]), lambda: torch.ones(2), gradient=gradient)

    under = Conditions(1, tolerance=1e-5, gradient_tolerance=0.2)

    assert measure("made", work(gradient=True), under)["error"] == ""
    assert "equal to 1e-05, got 0.2" in measure("made", work(gradient=False), under)["error"]


def test_a_workload_that_cannot_be_made_says_so_in_its_place():
    def refuse():
        raise InputError("a.py", expected="its help", got="nothing", remedy="look")

    found = attempt("made", refuse, Conditions(1, 1e-5, 1e-5))

    assert found.keys() == unmeasured("made").keys()
    assert found["error"] == "a.py: expected its help, got nothing; look"


def test_after_the_run_that_compares_both_take_turns_at_going_first():
    order = []

    def run(name):
        return lambda: order.append(name) or torch.ones(1)

    found = measure("made", Comparison(run("ours"), run("plain")), Conditions(3, 1e-5, 1e-5))

    first, *rounds = [tuple(order[i : i + 2]) for i in range(0, len(order), 2)]
    assert first == ("ours", "plain")
    assert rounds == [("ours", "plain"), ("plain", "ours"), ("ours", "plain")]
    assert found["rounds"] == 3


def test_outcomes_are_gone_when_the_timed_runs_begin():
    held, alive = [], []

    def ours():
        alive.append(sum(one() is not None for one in held))
        made = torch.ones(1000)
        held.append(weakref.ref(made))
        return made

    measure("made", Comparison(ours, lambda: torch.ones(1000)), Conditions(2, 1e-5, 1e-5))

    assert alive == [0, 0, 0]


def test_the_difference_of_a_gradient_is_one_of_lengths():
    wanted = torch.tensor([3.0, 4.0])

    assert difference(wanted + torch.tensor([0.0, 0.4]), wanted) == pytest.approx(0.1)
    assert difference(wanted + torch.tensor([0.3, 0.4]), wanted, gradient=True) == pytest.approx(0.1)


def test_useful_operations_are_those_of_distinct_rows_without_padding():
    made = Bench(SIZES["tiny"], CPU)
    rows = made.ours.prepare([*made.texts[:2], *made.pictures[:2]], "query")
    texts = [useful_flops(made.ours, [row]) for row in rows[:2]]

    assert len(rows[0]) != len(rows[1])
    assert useful_flops(made.ours, rows[:2]) == sum(texts)
    assert useful_flops(made.ours, [*rows[:2], *rows[:2]]) == sum(texts)
    # two pictures of one size cost the same
    assert useful_flops(made.ours, rows) == sum(texts) + 2 * useful_flops(made.ours, rows[2:3])
    forward = useful_flops(made.ours.train(), rows)
    assert 2 * forward < useful_flops(made.ours, rows, backward=True) < 4 * forward


def test_attention_on_a_cpu_is_counted():
    query = torch.randn(1, 2, 8, 16)

    found = counted(lambda: torch.nn.functional.scaled_dot_product_attention(query, query, query))

    assert found == 2 * 2 * (2 * 8 * 8 * 16)


def test_the_ceiling_is_the_best_of_the_sides():
    assert ceiling(torch.float32, CPU, (32,)) > 0


def test_peak_memory_sees_what_was_freed_again_and_how_far_it_rose():
    with peak_memory() as before:
        pass

    # pages of its own: what torch or Python hold for later would be used again unseen
    with peak_memory() as peak, mmap.mmap(-1, 64 << 20) as block:
        block.write(b"1" * (64 << 20))
    with peak_memory() as after:
        pass

    assert peak.peak_mb - before.peak_mb > 60
    assert peak.peak_mb - after.peak_mb > 60
    # the block and the bytes that are written to it
    assert 120 < peak.rise_mb < 140
    assert after.rise_mb < 10


def test_memory_that_was_there_before_is_no_rise():
    with mmap.mmap(-1, 64 << 20) as block:
        block.write(b"1" * (64 << 20))
        with peak_memory() as seen:
            pass

    assert seen.rise_mb < 10
    assert seen.peak_mb > 64
