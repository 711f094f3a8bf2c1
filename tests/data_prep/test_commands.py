"""The commands that make what is missing name no more than that."""

from pathlib import Path

import pytest

from data_prep.commands import preparing, sets_by_source
from data_prep.source import resolve

ROOT = Path("my data")


def sets(name):
    return [f"{source.name}/{row}" for source in resolve(name) for row in source.sets]


@pytest.mark.parametrize("name", ["mmeb_train", "mmeb_v2_train", "mmeb_v2", "mmeb_eval", "colpali_train"])
def test_all_sets_of_a_source_or_group_are_its_name(name):
    (line,) = preparing(sets(name)[::-1], ROOT)

    asked = line.removeprefix("python data_prep/prepare.py ").removesuffix(" --data-root 'my data'")
    assert [found for part in asked.split() for found in sets(part)] == sets(asked)
    assert len(asked.split()) == 1
    assert set(sets(asked)) == set(sets(name))


def test_some_sets_are_named_and_whole_sources_among_them():
    names = ["mmeb_train/OK-VQA", *sets("llava_hound"), "mmeb_train/WebQA"]

    assert list(sets_by_source(names)) == [["mmeb_train/OK-VQA", "mmeb_train/WebQA"], ["llava_hound"]]
    assert preparing(names, ROOT) == [
        "python data_prep/prepare.py mmeb_train/OK-VQA mmeb_train/WebQA llava_hound --data-root 'my data'"
    ]


def test_the_demo_and_tables_of_ones_own_have_lines_of_theirs():
    assert preparing(["demo/motion", "mine/pairs"], Path("data")) == [
        "python data_prep/demo.py --data-root data",
        "mine/pairs: of no source; a table of your own is written as docs/data.md says",
    ]


def test_pseudo_words_are_found_by_a_command_of_their_own():
    assert preparing(["pseudo_words/searle"], Path("data")) == [
        "python scripts/make_pseudo_words.py --config searle.yaml --pictures DIR --phrases FILE --data-root data"
    ]


def test_what_is_on_no_hub_has_a_line_of_its_own_that_asks_for_its_folder():
    assert preparing(["circo/val", "mmeb_train/OK-VQA", *sets("cirr")], Path("data")) == [
        "python data_prep/prepare.py mmeb_train/OK-VQA --data-root data",
        "python data_prep/prepare.py circo/val cirr --data-root data --source DIR",
    ]
