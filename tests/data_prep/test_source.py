"""Sources say what is published where; what they cannot mean is refused with file, set and field."""

import pytest

from data_prep.converters.registry import CONVERTERS
from data_prep.source import MediaFiles, read_source, resolve, source_names
from mmembed.errors import InputError

TWO = """
about: two sets
defaults:
  converter: c
  repo: o/n
  split: test
  options: {prompt: "Answer: {text}", first: 3}
  media: [{repo: o/media, files: [x.tar.gz], into: frames}]
sets:
  A-1: {rows: 12, options: {first: 5}}
  B: {split: train, media: []}
"""


def write(folder, **texts):
    for name, text in texts.items():
        (folder / f"{name}.yaml").write_text(text)


def test_sets_take_the_defaults_and_their_own_fields_go_before(tmp_path):
    write(tmp_path, two=TWO)

    source = read_source("two", tmp_path)

    first, second = source.sets["A-1"], source.sets["B"]
    assert (first.name, first.repo, first.split, first.rows) == ("A-1", "o/n", "test", 12)
    assert first.options == {"prompt": "Answer: {text}", "first": 5}
    assert first.media == (MediaFiles("o/media", files=("x.tar.gz",), into="frames"),)
    assert (second.split, second.media, second.options["first"]) == ("train", (), 3)


def test_a_source_may_be_like_another_with_other_defaults(tmp_path):
    write(tmp_path, two=TWO, like="about: again\nlike: two\ndefaults: {split: other}\n")

    source = read_source("like", tmp_path)

    assert {name: row.split for name, row in source.sets.items()} == {"A-1": "other", "B": "train"}
    assert source.sets["A-1"].repo == "o/n"


def test_a_group_stands_for_its_sources_each_set_once(tmp_path):
    write(tmp_path, two=TWO, one=TWO, group="about: g\nincludes: [two/A-1, one/B, two]\n")

    assert [(source.name, list(source.sets)) for source in resolve("group", tmp_path)] == [
        ("two", ["A-1", "B"]),
        ("one", ["B"]),
    ]
    assert [list(source.sets) for source in resolve("two/B", tmp_path)] == [["B"]]


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("colums: [a]", r"bad\.yaml: sets\.A\.colums: .*did you mean 'columns'\?"),
        ("rows: many", r"bad\.yaml: sets\.A\.rows: expected a whole number, got 'many'"),
        ("columns: a", r"bad\.yaml: sets\.A\.columns: expected a list, got 'a'"),
        ("columns: [1]", r"bad\.yaml: sets\.A\.columns\[0\]: expected words, got 1"),
        ("media: [{file: x}]", r"bad\.yaml: sets\.A\.media\[0\]\.file: .*did you mean 'files'\?"),
        ("options: [1]", r"bad\.yaml: sets\.A\.options: expected a mapping"),
    ],
)
def test_a_field_that_cannot_be_meant_is_named(tmp_path, field, message):
    write(tmp_path, bad=f"about: x\nsets:\n  A: {{repo: o/n, converter: c, {field}}}\n")

    with pytest.raises(InputError, match=message):
        read_source("bad", tmp_path)


def test_unknown_names_are_refused_with_the_nearest(tmp_path):
    write(tmp_path, two=TWO, bad="about: x\nincluded: [two]\n")

    with pytest.raises(InputError, match=r"expected a source, got 'tow'; did you mean 'two'\?"):
        resolve("tow", tmp_path)
    with pytest.raises(InputError, match=r"two/A-2: expected a set of two, got 'A-2'; did you mean 'A-1'\?"):
        resolve("two/A-2", tmp_path)
    with pytest.raises(InputError, match=r"bad\.yaml: included: .*did you mean 'includes'\?"):
        read_source("bad", tmp_path)


def test_a_source_like_another_takes_its_sets_and_each_default_and_option_that_it_does_not_say(tmp_path):
    first = "sets:\n  A: {rows: 3, options: {own: 1}}\ndefaults:\n  repo: o/n\n  converter: c\n"
    write(tmp_path, first=f"{first}  options: {{kind: box, words: x}}\n",
          second="like: first\ndefaults: {converter: d, options: {kind: mask}}\n")  # fmt: skip

    made = read_source("second", tmp_path).sets["A"]

    assert (made.repo, made.converter, made.rows) == ("o/n", "d", 3)
    assert made.options == {"kind": "mask", "words": "x", "own": 1}


def test_every_source_there_is_can_be_read_and_names_converters_that_are_there():
    sets = [row for name in source_names() for source in resolve(name) for row in source.sets.values()]

    assert len({(row.repo, row.name, row.split) for row in sets}) > 100
    assert {row.converter for row in sets} <= CONVERTERS.keys()
