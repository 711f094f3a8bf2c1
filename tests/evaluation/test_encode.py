import pytest
import torch

from mmembed.counters import counting
from mmembed.errors import InputError
from mmembed.evaluation.crew import Crew
from mmembed.evaluation.encode import encode_set
from mmembed.index.embedding_cache import EmbeddingCache
from mmembed.items import Item


class LengthEncoder:
    """Embeds a text as its length and its number of vowels, and remembers what it was given."""

    def __init__(self):
        self.calls = []

    def __call__(self, items, *, side):
        self.calls.append([item.text for item in items])
        return torch.tensor([[len(item.text), sum(item.text.count(v) for v in "aeiou")] for item in items]).double()


def items_of(*texts):
    return [(f"query {i}", Item.of(text)) for i, text in enumerate(texts)]


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

    items = [Item.of("a"), Item.of("a", instruction="Find it."), Item(("a",))]
    encode_set([("query", item) for item in items], Crew(encode), side="query")

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

    with pytest.raises(
        InputError, match="embedding of query 1: expected finite numbers, got NaN or infinity, in 1 of 2 embeddings"
    ):
        encode_set(items_of("good", "bad"), Crew(encode), side="query")


def test_an_item_that_cannot_be_embedded_is_called_by_its_name():
    """An embedder says which of the items it was given, which are in another order and only some of all."""

    def encode(items, *, side):
        place = next(i for i, item in enumerate(items) if item.text == "bad")
        raise InputError(f"item {place}: image.png", expected="a picture", got="text", remedy="mend it")

    with pytest.raises(InputError, match=r"^query 2: image.png: expected a picture, got text; mend it"):
        encode_set(items_of("a long text", "a long text", "bad", "another text"), Crew(encode), side="query")


def test_a_medium_that_changes_meanwhile_is_refused_and_not_kept(tmp_path, picture):
    path = tmp_path / "p.png"
    picture(28, 28, seed=1).save(path)
    space = EmbeddingCache(tmp_path / "cache", max_bytes=1 << 20).space({"weights": "w"})

    def encode(items, *, side):
        picture(56, 28, seed=2).save(path)
        return torch.ones(len(items), 2)

    with pytest.raises(InputError, match="target 7: expected media that stay as they are"):
        encode_set([("target 7", Item.of({"image": path}))], Crew(encode, space=space), side="target")

    assert len(space) == 0
