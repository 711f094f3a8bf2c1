"""Mixtures draw pairs from their tables and name the source whose table is wrong."""

from collections import Counter

import pytest

from mmembed.data.mixture import as_drawn, open_mixture
from mmembed.data.sampler import Row
from mmembed.data.settings import Sampling, Source
from mmembed.data.tables import write_pairs
from mmembed.errors import InputError
from mmembed.items import Item, Negative, Pair

SAMPLING = Sampling(batch_size=8, block_size=4, window=4)


@pytest.fixture
def data_root(tmp_path):
    for name, size in (("birds", 12), ("fish", 30)):
        pairs = [Pair(Item.of(f"{name} {i}"), (Item.of(f"target {i}"),)) for i in range(size - 1)]
        own = Pair(Item.of({"text": f"{name} own", "instruction": "Its own"}), (Item.of("target"),))
        write_pairs(tmp_path / name / "train.jsonl", [*pairs, own])
    return tmp_path


def mixture(data_root, **changes):
    sources = {
        "birds": Source("birds/train.jsonl", weight=3, instruction="Find the bird"),
        "fish": Source("fish/train.jsonl", weight=1, **changes),
    }
    return open_mixture(sources, SAMPLING, seed=5, data_root=data_root)


def test_pairs_follow_the_sampler_and_name_their_source(data_root):
    opened = mixture(data_root)

    for step in range(6):
        pairs = opened.pairs(step)
        rows = opened.sampler.rows(step)
        assert opened.rows(step) == rows
        assert [opened.pair(row) for row in rows] == pairs
        assert [pair.source for pair in pairs] == [row.source for row in rows]
        assert [pair.positives for pair in pairs] == [opened.tables[s][r].positives for s, r in rows]


def test_weights_decide_the_shares(data_root):
    opened = mixture(data_root)

    drawn = Counter(pair.source for step in range(10) for pair in opened.pairs(step))

    assert drawn == {"birds": 60, "fish": 20}


def test_a_source_gives_its_instruction_to_queries_without_one(data_root):
    opened = mixture(data_root)
    pairs = [pair for step in range(40) for pair in opened.pairs(step)]

    asked = {(pair.source, pair.query.text.endswith("own"), pair.query.instruction) for pair in pairs}

    assert asked == {
        ("birds", False, "Find the bird"),
        ("birds", True, "Its own"),
        ("fish", False, None),
        ("fish", True, "Its own"),
    }
    assert all(target.instruction is None for pair in pairs for target in pair.positives)


def test_a_limit_takes_the_first_rows(data_root):
    opened = mixture(data_root, limit=3)
    seen = {pair.query.text for step in range(40) for pair in opened.pairs(step) if pair.source == "fish"}

    assert seen == {"fish 0", "fish 1", "fish 2"}
    assert mixture(data_root, limit=99).sampler.sizes["fish"] == 30


@pytest.mark.parametrize("positives", [None, 1, 2, 9])
@pytest.mark.parametrize("negatives", [None, 0, 1, 9])
def test_the_first_positives_and_negatives_are_used(positives, negatives):
    pair = Pair(
        query=Item.of("q"),
        positives=tuple(Item.of(f"p{i}") for i in range(3)),
        negatives=tuple(Negative(Item.of(f"n{i}"), rank=i + 1) for i in range(2)),
        teacher_scores=(0.9, 0.8, 0.7, 0.2, 0.1),
        target_ids=("p0", "p1", "p2"),
    )

    cut = as_drawn(pair, "s", Source("t.jsonl", max_positives=positives, max_negatives=negatives))

    kept = [i for i in range(3) if positives is None or i < positives]
    left = [i for i in range(2) if negatives is None or i < negatives]
    assert [item.text for item in cut.positives] == [f"p{i}" for i in kept]
    assert list(cut.target_ids) == [f"p{i}" for i in kept]
    assert [(negative.item.text, negative.rank) for negative in cut.negatives] == [(f"n{i}", i + 1) for i in left]
    assert list(cut.teacher_scores) == [(0.9, 0.8, 0.7)[i] for i in kept] + [(0.2, 0.1)[i] for i in left]


def test_a_pair_without_names_and_scores_is_cut_too():
    pair = Pair(Item.of("q"), (Item.of("p0"), Item.of("p1")), (Negative(Item.of("n")),))

    cut = as_drawn(pair, "s", Source("t.jsonl", max_positives=1, max_negatives=0))

    assert cut == Pair(Item.of("q"), (Item.of("p0"),), source="s")


def test_a_mixture_cuts_its_pairs(tmp_path):
    pair = Pair(Item.of("q"), (Item.of("p0"), Item.of("p1")), (Negative(Item.of("n")),))
    write_pairs(tmp_path / "t.jsonl", [pair])
    source = Source("t.jsonl", max_positives=1, max_negatives=0)

    (cut, *_) = open_mixture({"t": source}, SAMPLING, seed=0, data_root=tmp_path).pairs(0)

    assert (cut.positives, cut.negatives) == ((Item.of("p0"),), ())


def test_a_source_without_weight_needs_no_table(data_root):
    sources = {"off": Source("gone.jsonl", weight=0), "birds": Source("birds/train.jsonl")}

    opened = open_mixture(sources, SAMPLING, seed=5, data_root=data_root)

    assert list(opened.sources) == ["off", "birds"]
    assert opened.sampler.sizes == {"off": 0, "birds": 12}
    assert {pair.source for pair in opened.pairs(0)} == {"birds"}


def test_a_mixture_whose_weights_sum_to_zero_is_refused(data_root):
    with pytest.raises(InputError, match="got weights that sum to zero, of birds"):
        open_mixture({"birds": Source("birds/train.jsonl", weight=0)}, SAMPLING, seed=5, data_root=data_root)


def test_shares_may_follow_the_rows_of_the_tables(data_root):
    sources = {"birds": Source("birds/train.jsonl"), "fish": Source("fish/train.jsonl", limit=24)}

    opened = open_mixture(sources, Sampling(6, 2, 3, shares="rows"), seed=5, data_root=data_root)

    assert opened.sampler.composition(0, 6) == {"birds": 12, "fish": 24}
    drawn = Counter(row for step in range(6) for row in opened.rows(step))
    assert drawn == {Row(name, row): 1 for name, size in (("birds", 12), ("fish", 24)) for row in range(size)}


@pytest.mark.parametrize(
    ("sampling", "repeats"),
    [
        (Sampling(8, 4), {}),
        (Sampling(16, 16), {"birds": (12, 16)}),
        (Sampling(64, 8, regime="one_source"), {"birds": (12, 64), "fish": (30, 64)}),
        (Sampling(8, 100), {}),
    ],
    ids=["small blocks", "a block of more rows", "a regime of large blocks", "a block over several steps"],
)
def test_sources_whose_rows_meet_themselves_are_named(data_root, sampling, repeats):
    sources = {"birds": Source("birds/train.jsonl"), "fish": Source("fish/train.jsonl"), "off": Source("x", weight=0)}

    assert open_mixture(sources, sampling, seed=5, data_root=data_root).repeats() == repeats


def test_a_missing_table_names_its_source(tmp_path):
    with pytest.raises(InputError, match=r"mixture\.birds: .*gone\.jsonl: expected a file, got no such file"):
        open_mixture({"birds": Source("gone.jsonl")}, SAMPLING, seed=0, data_root=tmp_path)
