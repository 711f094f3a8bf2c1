"""The batches of VLM2Vec-V2's recipe: sixteen blocks of 64, sources by weight, whatever the ranks and workers."""

from collections import Counter
from fractions import Fraction
from itertools import groupby
from pathlib import Path

import pytest

from mmembed.data.sampler import Sampler
from mmembed.recipe import read_recipe

CONFIGS = Path(__file__).parents[2] / "configs"
STAGE = read_recipe(CONFIGS / "vlm2vec_v2.yaml").stages["main"]
# rows that nobody published are taken from the limits, or made up: shares do not depend on them
SIZES = {name: source.limit or 240_000 for name, source in STAGE.mixture.items()}
WEIGHTS = {name: source.weight for name, source in STAGE.mixture.items()}
STEPS = 1000


def sampler(**changes):
    return Sampler(SIZES, WEIGHTS, STAGE.sampling.__class__(**(vars(STAGE.sampling) | changes)), seed=42)


@pytest.fixture(scope="module")
def batches():
    drawn = sampler()
    return [drawn.rows(step) for step in range(STEPS)]


def test_the_weights_are_the_published_ones():
    assert len(WEIGHTS) == 25
    assert sum(WEIGHTS.values()) == 52
    assert WEIGHTS["colpali_train_set"] + WEIGHTS["visrag-indomain"] == 22
    assert sum(weight for name, weight in WEIGHTS.items() if name.startswith("video")) == 15


def test_every_global_batch_is_sixteen_blocks_of_64_of_one_source(batches):
    for rows in batches:
        assert len(rows) == 1024
        blocks = [{row.source for row in rows[i : i + 64]} for i in range(0, 1024, 64)]
        assert len(blocks) == 16
        assert all(len(sources) == 1 for sources in blocks)


def test_the_composition_of_a_thousand_steps_is_the_plan_of_the_weights(batches):
    rows = Counter(row.source for batch in batches for row in batch)

    assert rows == sampler().composition(0, STEPS)
    for name, weight in WEIGHTS.items():
        planned = Fraction(str(weight)) / 52 * STEPS * 16
        # each source takes its part of what those before it left, to the nearest block: off by one or two of 16,000
        assert abs(Fraction(rows[name], 64) - planned) < 2, name


def test_no_batch_depends_on_how_many_ranks_and_workers_share_it(batches):
    for world in (2, 8):
        ranks = [batches[7][rank::world] for rank in range(world)]
        together = [row for group in zip(*ranks, strict=True) for row in group]
        assert together == batches[7]
        # eight rows of every block on each of eight ranks
        assert all(max(Counter(row.source for row in rank).values()) >= 64 // world for rank in ranks)


@pytest.mark.parametrize(
    ("regime", "sources_a_batch", "steps_alike"),
    [("recipe", 16, 1), ("two_sources", 2, 1), ("held_sources", 16, 4), ("one_source", 1, 4)],
)
def test_the_published_commands_batches_are_regimes(regime, sources_a_batch, steps_alike):
    drawn = sampler(regime=regime)
    patterns = [[name for name, _ in groupby(row.source for row in drawn.rows(step))] for step in range(8)]

    for step in range(8):
        sizes = Counter(row.source for row in drawn.rows(step))
        assert len(patterns[step]) <= sources_a_batch
        assert all(rows % (1024 // sources_a_batch) == 0 for rows in sizes.values())
    held = [patterns[step] == patterns[step - step % steps_alike] for step in range(8)]
    assert all(held)
    assert len({tuple(pattern) for pattern in patterns}) > 1
