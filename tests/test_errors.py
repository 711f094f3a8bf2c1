"""Errors in words."""

import pytest

from mmembed.errors import InputError, MediaError, nearest


def test_an_error_says_where_what_was_expected_what_came_and_what_to_do():
    error = InputError("rows.jsonl: row 7: query", expected="a string", got=3, remedy="quote it")

    assert str(error) == "rows.jsonl: row 7: query: expected a string, got 3; quote it"
    assert (error.where, error.expected, error.got, error.remedy) == (
        "rows.jsonl: row 7: query",
        "a string",
        "3",
        "quote it",
    )
    assert isinstance(error, ValueError)


@pytest.mark.parametrize("kind", [InputError, MediaError])
def test_an_error_keeps_its_kind_seen_from_a_wider_place(kind):
    wider = kind("row 7", expected="a string", got=3, remedy="quote it").within("rows.jsonl")

    assert type(wider) is kind
    assert str(wider) == "rows.jsonl: row 7: expected a string, got 3; quote it"


@pytest.mark.parametrize(
    ("word", "known", "remedy"),
    [
        ("warmup_step", ["warmup_steps", "lr"], "did you mean 'warmup_steps'?"),
        ("x", ["warmup_steps", "lr"], "known: lr, warmup_steps"),
        ("x", [], "known: "),
    ],
)
def test_the_nearest_word_is_named_or_all_of_them(word, known, remedy):
    assert nearest(word, known) == remedy
