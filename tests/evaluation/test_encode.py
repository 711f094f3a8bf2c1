import pytest
import torch

from mmembed.counters import counting
from mmembed.errors import InputError
from mmembed.evaluation.crew import Crew
from mmembed.evaluation.encode import encode_set
from mmembed.items import Item


class LengthEncoder:
    """Embeds a text as its length and its number of vowels, and remembers what it was given."""

    def __init__(self):
        self.calls = []

    def __call__(self, items, *, side):
        self.calls.append([item.text for item in items])
        return torch.tensor([[len(item.text), sum(item.text.count(v) for v in "aeiou")] for item in items]).double()


def items_of(*texts):
    return [Item.of(text) for text in texts]


def test_rows_come_back_in_order_and_duplicates_are_encoded_once():
    encode = LengthEncoder()

    with counting() as work:
        vectors = encode_set(items_of("a", "bcd", "a", "ee", "bcd", "a"), Crew(encode), side="query")

    assert vectors.tolist() == [[1, 1], [3, 0], [1, 1], [2, 2], [3, 0], [1, 1]]
    assert vectors.dtype == torch.float32
    assert [sorted(call) for call in encode.calls] == [["a", "bcd", "ee"]]
    assert work["cache_hits"] == 3


def test_the_same_text_under_another_instruction_is_another_input():
    encode = LengthEncoder()

    encode_set([Item.of("a"), Item.of("a", instruction="Find it."), Item(("a",))], Crew(encode), side="query")

    assert encode.calls == [["a", "a", "a"]]


def test_windows_bound_what_is_held_and_change_nothing():
    texts = [f"{'ab' * (i % 5)}c" for i in range(23)]
    encode = LengthEncoder()

    vectors = encode_set(iter(items_of(*texts)), Crew(encode), side="query", window=2)

    assert torch.equal(vectors, encode_set(items_of(*texts), Crew(LengthEncoder()), side="query"))
    assert [len(call) for call in encode.calls] == [2, 2, 1]


def test_nothing_to_encode_is_refused():
    with pytest.raises(InputError, match="items: expected at least one, got none"):
        encode_set([], Crew(LengthEncoder()), side="query")


def test_an_encoder_of_the_wrong_shape_is_refused():
    with pytest.raises(InputError, match=r"expected \[2, D\], one row for each item, got \[1, 2\]"):
        encode_set(items_of("a", "b"), Crew(lambda items, *, side: torch.ones(1, 2)), side="query")


def test_an_embedding_that_is_not_finite_names_its_item():
    def encode(items, *, side):
        return torch.tensor([[1.0, torch.nan if item.text == "bad" else 0.0] for item in items])

    with pytest.raises(InputError, match="NaN or infinity in 1 of 2 rows, first for 'bad'"):
        encode_set(items_of("good", "bad"), Crew(encode), side="query")
