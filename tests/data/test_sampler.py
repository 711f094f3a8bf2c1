"""The sampler against its promises: shares, epochs, pure in (seed, step), constant cost."""

from collections import Counter
from itertools import islice, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmembed.counters import counting
from mmembed.data.permutation import Permutation, key_of
from mmembed.data.sampler import Row, Sampler
from mmembed.data.settings import Sampling
from mmembed.errors import InputError

SIZES = {"a": 50, "b": 17, "c": 400}
WEIGHTS = {"a": 0.5, "b": 0.2, "c": 0.3}
REGIMES = ("two_sources", "held_sources", "one_source")


def make(sizes=SIZES, weights=WEIGHTS, batch_size=16, block_size=4, window=10, seed=1, **sampling):
    return Sampler(sizes, weights, Sampling(batch_size, block_size, window, **sampling), seed=seed)


def sources_of(sampler, step):
    return [row.source for row in sampler.rows(step)]


def blocks_of(sampler, steps):
    """Source of each block, in order."""
    size = sampler.sampling.block_size
    sources = [source for step in range(steps) for source in sources_of(sampler, step)]
    return [sources[i] for i in range(0, len(sources), size)]


def walk(sampler):
    """The batches of a sampler over SIZES and WEIGHTS, row after row from the first step on."""
    plan, drawn = sampler.sampling.resolved, Counter()
    # blocks of one row in batches of one row are the plan's blocks
    alone = Sampling(1, 1, plan.window, shares=plan.shares)
    blocks = Sampler(SIZES, WEIGHTS, alone, seed=sampler.seed)
    step = 0
    while True:
        batch = []
        for place in range(plan.batch_size):
            block = (step // plan.hold * plan.batch_size + place) // plan.block_size
            source = blocks.rows(block)[0].source
            epoch, index = divmod(drawn[source], SIZES[source])
            batch.append(Row(source, Permutation(SIZES[source], key_of(sampler.seed, "rows", source, epoch))(index)))
            drawn[source] += 1
        yield batch
        step += 1


@st.composite
def samplings(draw):
    """Settings of any kind over small batches."""
    regime = draw(st.sampled_from(("recipe", *REGIMES)))
    batch = draw(st.integers(1, 12)) * (2 if regime == "two_sources" else 1)
    block, window = draw(st.integers(1, 40)), draw(st.integers(1, 8))
    hold = draw(st.integers(1, 5)) if regime == "recipe" else 1
    return Sampling(batch, block, window, hold, regime, draw(st.sampled_from(("weight", "rows"))))


def test_a_batch_is_made_of_whole_blocks_that_divide_it():
    sampler = make()

    for step in range(20):
        rows = sampler.rows(step)
        assert len(rows) == 16
        assert all(len({row.source for row in rows[i : i + 4]}) == 1 for i in range(0, 16, 4))
        assert all(0 <= row.row < SIZES[row.source] for row in rows)


@settings(max_examples=40, deadline=None)
@given(sampling=samplings(), start=st.integers(0, 20))
def test_a_step_is_what_a_walk_from_the_first_step_finds(sampling, start):
    sampler = Sampler(SIZES, WEIGHTS, sampling, seed=3)

    assert [sampler.rows(step) for step in range(start, start + 4)] == list(islice(walk(sampler), start, start + 4))


@settings(max_examples=25, deadline=None)
@given(sampling=samplings())
def test_each_row_comes_once_in_an_epoch_of_its_source(sampling):
    sampler = Sampler({"a": 7, "b": 12, "c": 31}, WEIGHTS, sampling, seed=3)
    drawn = {name: [] for name in sampler.sizes}
    for step in range(400 // sampling.batch_size):
        for source, row in sampler.rows(step):
            drawn[source].append(row)

    for name, size in sampler.sizes.items():
        for start in range(0, len(drawn[name]), size):
            epoch = drawn[name][start : start + size]
            assert len(set(epoch)) == len(epoch)
            assert set(epoch) <= set(range(size))


def test_each_epoch_has_an_order_of_its_own():
    drawn = [row for step in range(80) for source, row in make().rows(step) if source == "b"]

    assert sorted(drawn[:17]) == sorted(drawn[17:34])
    assert drawn[:17] != drawn[17:34]


def test_a_block_goes_on_in_the_next_batch():
    sampler = make(batch_size=8, block_size=20)

    rows = [row for step in range(50) for row in sampler.rows(step)]

    assert all(len({row.source for row in rows[i : i + 20]}) == 1 for i in range(0, 400, 20))
    assert Counter(row.source for row in rows[:200]) == {"a": 100, "b": 40, "c": 60}


def test_held_steps_have_the_same_sources_and_other_rows():
    sampler = make(batch_size=16, block_size=4, hold=3)

    for first in range(0, 60, 3):
        held = [sampler.rows(first + turn) for turn in range(3)]
        assert len({tuple(row.source for row in batch) for batch in held}) == 1
        assert len({tuple(row.row for row in batch) for batch in held}) == 3
    assert sources_of(sampler, 2) != sources_of(sampler, 3)


@pytest.mark.parametrize(
    ("regime", "block_size", "hold"), [(REGIMES[0], 8, 1), (REGIMES[1], 4, 4), (REGIMES[2], 16, 4)]
)
def test_a_regime_is_a_block_size_and_a_hold(regime, block_size, hold):
    named, written = make(regime=regime), make(block_size=block_size, hold=hold)

    assert [named.rows(step) for step in range(12)] == [written.rows(step) for step in range(12)]


def test_the_regimes_have_as_many_sources_a_batch_as_they_say():
    patterns = {regime: [sources_of(make(regime=regime), step) for step in range(40)] for regime in REGIMES}

    assert all(len(set(batch)) == 1 for batch in patterns["one_source"])
    assert all(len(set(batch[:8])) == len(set(batch[8:])) == 1 for batch in patterns["two_sources"])
    assert max(len(set(batch)) for batch in patterns["held_sources"]) == 3
    for regime in ("held_sources", "one_source"):
        assert all(len(set(map(tuple, patterns[regime][i : i + 4]))) == 1 for i in range(0, 40, 4))


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


def test_shares_by_rows_make_weight_one_a_concatenation():
    sizes = {"a": 40, "b": 80, "c": 280}
    sampler = make(sizes, dict.fromkeys(sizes, 1), shares="rows")

    drawn = Counter(row for step in range(25) for row in sampler.rows(step))

    assert drawn == {Row(name, row): 1 for name, size in sizes.items() for row in range(size)}
    assert sampler.shares == {"a": 0.1, "b": 0.2, "c": 0.7}


def test_shares_by_rows_make_weight_two_draw_twice():
    sampler = make({"a": 40, "b": 120}, {"a": 2, "b": 1}, shares="rows")

    drawn = Counter(row for step in range(25) for row in sampler.rows(step))

    assert {row.source: number for row, number in drawn.items()} == {"a": 4, "b": 2}
    assert set(drawn.values()) == {4, 2}
    assert sampler.shares == {"a": 0.4, "b": 0.6}


def test_a_source_without_weight_is_as_if_it_were_not_there():
    off = make(SIZES | {"off": 0}, {"off": 0.0} | WEIGHTS)

    assert [off.rows(step) for step in range(5)] == [make().rows(step) for step in range(5)]
    assert off.shares == {"a": 0.5, "b": 0.2, "c": 0.3, "off": 0.0}


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


@settings(max_examples=40, deadline=None)
@given(sampling=samplings(), first=st.integers(0, 10**6), steps=st.integers(0, 12))
def test_composition_counts_the_rows_that_are_drawn(sampling, first, steps):
    sampler = Sampler(SIZES, WEIGHTS, sampling, seed=3)

    drawn = Counter(row.source for step in range(first, first + steps) for row in sampler.rows(step))

    assert sampler.composition(first, steps) == drawn


@settings(max_examples=40, deadline=None)
@given(sampling=samplings(), steps=st.integers(1, 10**6))
def test_the_rows_of_any_stretch_keep_to_the_shares(sampling, steps):
    sampler = Sampler(SIZES, WEIGHTS, sampling, seed=3)
    plan, rows = sampling.resolved, steps * sampling.batch_size

    found = sampler.composition(0, steps)

    assert found.total() == rows
    # a window that is not yet full, and a batch of the plan that is not yet held to its end
    slack = plan.block_size * (plan.window + len(SIZES) / 2) * plan.hold + plan.hold * plan.batch_size
    assert all(abs(found[name] - rows * share) <= slack for name, share in sampler.shares.items())


def test_the_millionth_step_costs_what_the_first_does():
    def cost(sampler, step):
        with counting() as work:
            sampler.rows(step)
        return work["sampler_operations"]

    # where the batch begins and ends: three chains over 3 sources and a window; its one window again; 16 rows
    assert cost(make(), 1) == cost(make(), 1_000_000) == 2 * (3 * 3 + 10) + (2 * 3 + 10) + 16
    assert cost(make(block_size=7, hold=3), 9) == cost(make(block_size=7, hold=3), 9_450_000_009)


def test_counting_the_rows_of_a_million_steps_costs_what_one_does():
    def cost(steps):
        with counting() as work:
            make().composition(5, steps)
        return work["sampler_operations"]

    assert cost(1) == cost(1_000_000) == 4 * (3 * 3 + 10)


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


def test_weights_that_sum_to_zero_are_refused():
    with pytest.raises(
        InputError, match="mixture: expected a source with weight, got weights that sum to zero, of a, b"
    ):
        make({"a": 1, "b": 1}, {"a": 0, "b": 0.0})


@pytest.mark.parametrize("weight", [-1, float("inf"), float("nan")])
def test_a_weight_that_is_no_share_is_refused(weight):
    with pytest.raises(InputError, match=rf"mixture\.a\.weight: expected a positive number, or 0, got {weight}"):
        make({"a": 1}, {"a": weight})


def test_sources_without_weight_are_refused():
    with pytest.raises(InputError, match=r"expected weights of \['a', 'b'\], got \['a', 'c'\]"):
        make({"a": 1, "b": 1}, {"a": 1, "c": 1})
