"""Mixtures draw pairs from their tables and say what is wrong with their YAML."""

from collections import Counter

import pytest

from mmembed.data.mixture import open_mixture, read_mixture
from mmembed.data.settings import Sampling, Source
from mmembed.data.tables import write_pairs
from mmembed.errors import InputError
from mmembed.items import Item, Pair

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


def test_yaml_gives_sources_in_order(tmp_path):
    (tmp_path / "m.yaml").write_text(
        "zebra: {table: z.parquet, weight: 2.5, limit: 10, instruction: Find it}\nape:\n  table: a.jsonl\n"
    )

    read = read_mixture(tmp_path / "m.yaml")

    assert read == {"zebra": Source("z.parquet", 2.5, 10, "Find it"), "ape": Source("a.jsonl")}
    assert list(read) == ["zebra", "ape"]
    assert read_mixture({"ape": {"table": "a.jsonl"}, "b": Source("b.jsonl")})["ape"] == Source("a.jsonl")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "a: {table: x.jsonl, weigth: 2}",
            "m.yaml: a.weigth: expected a setting of Source, got 'weigth'; did you mean",
        ),
        ("a: {weight: 2}", "m.yaml: a.table: expected a value, got nothing"),
        ("a: {table: x.jsonl, weight: 0}", "source.weight: expected a positive number, got 0"),
        ("a: {table: x.jsonl, limit: many}", "m.yaml: a.limit"),
        ("a: x.jsonl", "m.yaml: a: expected a mapping of settings, got str"),
        ("- a", "m.yaml: expected a mapping of sources, got ['a']"),
        ("a: {table: x}\na: {table: y}", "m.yaml: line 2: a: expected each key once"),
    ],
)
def test_bad_yaml_names_file_and_key(tmp_path, text, message):
    (tmp_path / "m.yaml").write_text(text)

    with pytest.raises(InputError) as caught:
        read_mixture(tmp_path / "m.yaml")
    assert message in str(caught.value)


def test_a_missing_table_names_its_source(tmp_path):
    with pytest.raises(InputError, match=r"mixture\.birds: .*gone\.jsonl: expected a file, got no such file"):
        open_mixture({"birds": Source("gone.jsonl")}, SAMPLING, seed=0, data_root=tmp_path)
