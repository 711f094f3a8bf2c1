"""The sampler against its promises: shares, epochs, pure in (seed, step), constant cost."""

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmembed.counters import counting
from mmembed.data.sampler import Row, Sampler
from mmembed.errors import InputError

SIZES = {"a": 50, "b": 17, "c": 400}
WEIGHTS = {"a": 0.5, "b": 0.2, "c": 0.3}


def make(sizes=SIZES, weights=WEIGHTS, batch_size=16, block_size=4, window=10, seed=1):
    return Sampler(sizes, weights, batch_size, block_size, window, seed)


def blocks_of(sampler, steps):
    """Source of each block, in order."""
    size = sampler.sampling.block_size
    rows = [row for step in range(steps) for row in sampler.rows(step)]
    return [rows[i].source for i in range(0, len(rows), size)]


def test_a_batch_is_made_of_whole_blocks():
    sampler = make()

    for step in range(20):
        rows = sampler.rows(step)
        assert len(rows) == 16
        assert all(len({row.source for row in rows[i : i + 4]}) == 1 for i in range(0, 16, 4))
        assert all(0 <= row.row < SIZES[row.source] for row in rows)


def test_each_row_comes_once_in_an_epoch_of_its_source():
    sampler = make()
    drawn = {name: [] for name in SIZES}
    for step in range(80):
        for source, row in sampler.rows(step):
            drawn[source].append(row)

    for name, size in SIZES.items():
        epochs = [drawn[name][start : start + size] for start in range(0, len(drawn[name]), size)]
        assert len(epochs) >= 1
        for epoch in epochs[:-1]:
            assert sorted(epoch) == list(range(size))
        assert len(set(epochs[-1])) == len(epochs[-1])
    assert drawn["b"][:17] != drawn["b"][17:34]


def test_every_window_holds_what_the_weights_say():
    blocks = blocks_of(make(), 50)

    for start in range(0, 200, 10):
        assert Counter(blocks[start : start + 10]) == {"a": 5, "b": 2, "c": 3}


def test_the_rounding_error_is_carried_to_the_next_window():
    thirds = make(weights={"a": 1, "b": 1, "c": 1})

    blocks = blocks_of(thirds, 75)

    assert Counter(blocks) == {"a": 100, "b": 100, "c": 100}
    for start in range(0, 300, 10):
        assert all(number in (3, 4) for number in Counter(blocks[start : start + 10]).values())


def test_the_order_inside_a_window_is_shuffled_anew():
    blocks = blocks_of(make(), 50)

    assert len({tuple(blocks[start : start + 10]) for start in range(0, 200, 10)}) > 15


@settings(max_examples=60)
@given(
    weights=st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=8),
    window=st.integers(1, 70),
    start=st.integers(0, 10**9),
)
def test_cumulative_counts_rise_and_add_up(weights, window, start):
    names = [f"s{i}" for i in range(len(weights))]
    sampler = make(dict.fromkeys(names, 5), dict(zip(names, weights, strict=True)), window=window)

    counts = [sampler._blocks_before(start + i) for i in range(6)]

    total = sum(weights)
    for number, now in enumerate(counts):
        blocks = (start + number) * window
        assert sum(now) == blocks
        assert all(c >= 0 for c in now)
        # half a block of rounding, and what the sources before it left over
        assert all(abs(c - blocks * w / total) <= len(weights) / 2 + 1e-4 for c, w in zip(now, weights, strict=True))
    for now, later in pairwise(counts):
        assert all(a <= b for a, b in zip(now, later, strict=True))


@settings(max_examples=30)
@given(weights=st.lists(st.floats(0.01, 10), min_size=1, max_size=5), steps=st.integers(1, 12))
def test_composition_counts_the_rows_that_are_drawn(weights, steps):
    names = [f"s{i}" for i in range(len(weights))]
    sampler = make(dict.fromkeys(names, 9), dict(zip(names, weights, strict=True)))

    drawn = Counter(row.source for step in range(3, 3 + steps) for row in sampler.rows(step))

    assert sampler.composition(3, steps) == drawn


def test_the_millionth_step_costs_what_the_first_does():
    sampler = make()

    def cost(step):
        with counting() as work:
            sampler.rows(step)
        return work["sampler_operations"]

    # 4 blocks: two chains over 3 sources, a window of 10, 4 rows
    assert cost(1) == cost(1_000_000) == 4 * (2 * 3 + 10 + 4)


def test_a_step_does_not_depend_on_the_steps_before_it():
    used = make()
    for step in range(30):
        used.rows(step)

    assert used.rows(12) == make().rows(12)


def test_seeds_differ():
    assert make(seed=1).rows(0) != make(seed=2).rows(0)


def test_the_order_is_the_same_on_every_machine():
    assert make().rows(7)[:3] == [Row("a", 29), Row("a", 35), Row("a", 0)]


def test_a_weight_is_its_decimal_text():
    tenths = make({"a": 5, "b": 5}, {"a": 0.1, "b": 0.2}, window=3)

    assert Counter(blocks_of(tenths, 30)) == {"a": 40, "b": 80}


def test_a_source_smaller_than_a_block_crosses_epochs():
    sampler = make({"tiny": 3}, {"tiny": 1.0}, batch_size=8, block_size=8)

    rows = [row.row for step in range(3) for row in sampler.rows(step)]

    assert all(sorted(rows[start : start + 3]) == [0, 1, 2] for start in range(0, 24, 3))


def test_a_mixture_without_sources_is_refused():
    with pytest.raises(InputError, match="mixture: expected at least one source, got none"):
        make({}, {})


def test_an_empty_source_is_refused():
    with pytest.raises(InputError, match=r"mixture\.b: expected at least one row, got 0"):
        make({"a": 1, "b": 0}, {"a": 1, "b": 1})


def test_a_source_that_weighs_nothing_is_refused():
    with pytest.raises(InputError, match=r"mixture\.a\.weight: expected a positive number, got 0"):
        make({"a": 1}, {"a": 0})


def test_blocks_must_fill_a_batch():
    with pytest.raises(InputError, match="expected a divisor of batch_size 16, got 5"):
        make(block_size=5)


def test_sources_without_weight_are_refused():
    with pytest.raises(InputError, match=r"expected weights of \['a', 'b'\], got \['a', 'c'\]"):
        make({"a": 1, "b": 1}, {"a": 1, "c": 1})
