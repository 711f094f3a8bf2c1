import pytest

from mmembed.errors import InputError
from mmembed.serve.instructions import read_instructions


def test_instructions_are_read_by_kind(tmp_path):
    (tmp_path / "i.yaml").write_text('region: "what is here ?"\nwords: " find it : "\n')

    assert read_instructions(tmp_path / "i.yaml") == {"region": "what is here ?", "words": "find it :"}


@pytest.mark.parametrize(
    "text, error",
    [
        ("regoin: x", r"regoin: expected a kind of query, got regoin; did you mean 'region'\?"),
        ("region: 3", "region: expected words, got 3"),
        ("- region", "expected kinds of query with their words"),
    ],
)
def test_a_file_that_says_something_else_is_refused(text, error, tmp_path):
    (tmp_path / "i.yaml").write_text(text)

    with pytest.raises(InputError, match=error):
        read_instructions(tmp_path / "i.yaml")


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match=r"gone\.yaml"):
        read_instructions(tmp_path / "gone.yaml")
