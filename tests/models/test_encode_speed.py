"""What encode leaves out or does at once, against the same without: equal vectors, and the work that is saved."""

import gc
from dataclasses import replace

import pytest
import torch

from mmembed import Image, Item
from mmembed.counters import counting
from mmembed.models.ahead import MOST_ROWS
from mmembed.models.encoding import WINDOW_CHUNKS
from mmembed.models.sequence import Row, collate
from mmembed.models.settings import RawPrompt, Speed

SAME = 2e-6
UNEVEN = ["x", "a red circle " * 20, "y", "a blue circle " * 20, "z"]


def encoded(embedder, items, speed, **options):
    """Vectors and work of an embedder with another speed, which it forgets again."""
    settings = embedder.settings
    embedder.settings = replace(settings, speed=speed)
    try:
        with counting() as work:
            return embedder.encode(items, **options), work
    finally:
        embedder.settings = settings


@pytest.fixture(scope="module")
def embedder(scratch_embedder):
    return scratch_embedder("qwen2_vl")


@pytest.fixture(scope="module")
def repeated(picture):
    """Seven rows of four kinds, with one picture in three of them, twice in one."""
    shown = picture(56, 56)
    pair = Item((Image(shown), " or ", Image(shown)))
    return ["x", {"image": shown}, "x", {"image": shown, "text": "y"}, pair, {"image": shown}, "x"]


def test_unsorted_rows_pass_in_the_order_given(embedder):
    lengths = [len(row) for row in embedder.prepare([Item.of(text) for text in UNEVEN], "query")]
    pair = 2 * max(lengths)

    slow, unsorted = encoded(embedder, UNEVEN, Speed(sort=False), batch_tokens=pair)
    fast, by_length = encoded(embedder, UNEVEN, Speed(), batch_tokens=pair)

    assert torch.allclose(fast, slow, atol=SAME, rtol=0)
    assert unsorted["language_tokens"] == by_length["language_tokens"] == sum(lengths)
    # two by two as they stand, and one left over; or both long rows together
    assert unsorted["padded_tokens"] == 2 * pair + lengths[-1]
    assert by_length["padded_tokens"] == sum(lengths) + abs(lengths[1] - lengths[3])


def test_equal_rows_of_different_windows_are_encoded_once(embedder):
    texts = ["a red circle", "a blue one", "x"]

    # a window ends with 16 tokens
    vectors, work = encoded(embedder, texts * 3, Speed(), batch_tokens=1)

    assert work["language_rows"] == 3
    assert torch.equal(vectors[3:6], vectors[:3])
    assert torch.allclose(vectors[6:], embedder.encode(texts), atol=SAME, rtol=0)


@pytest.mark.parametrize("workers", [0, 1])
def test_what_is_held_does_not_grow_with_the_number_of_items(workers, embedder):
    texts = [f"a red circle {number}" for number in range(1000, 2000)]
    length = len(embedder.prepare([Item.of(texts[0])], "query")[0])
    held = []
    hook = embedder.backbone.language_model.register_forward_hook(
        lambda *_: held.append(sum(type(thing) is Row for thing in gc.get_objects()))
    )
    try:
        embedder.encode(texts, batch_tokens=16 * length, workers=workers)
    finally:
        hook.remove()

    # a window and the row behind it; with workers one more that the thread took meanwhile, and groups on their way
    window = WINDOW_CHUNKS * 16 + 1
    assert len(held) == -(-1000 // 16)
    assert max(held) <= (window if workers == 0 else 2 * window + 3 * MOST_ROWS) < 1000


def test_without_sharing_every_row_and_every_medium_is_encoded_where_it_stands(embedder, repeated):
    slow, apart = encoded(embedder, repeated, Speed(deduplicate=False))
    fast, shared = encoded(embedder, repeated, Speed())

    assert torch.allclose(fast, slow, atol=SAME, rtol=0)
    assert (apart["language_rows"], apart["tower_forwards"]) == (7, 5)
    assert (shared["language_rows"], shared["tower_forwards"]) == (4, 1)


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
def test_every_speed_gives_the_same_vectors(family, mixed_items, scratch_embedder):
    one = scratch_embedder(family)
    items = [*mixed_items, *mixed_items[:3]]
    slow, _ = encoded(one, items, Speed(sort=False, deduplicate=False), batch_tokens=1)

    for batch_tokens in (90, 10**6):
        fast, _ = encoded(one, items, Speed(), batch_tokens=batch_tokens)
        assert torch.allclose(fast, slow, atol=SAME, rtol=0)


def test_autocast_moves_a_vector_a_little_and_leaves_weights_and_forward_alone(embedder, mixed_items):
    batch = collate(embedder.prepare(mixed_items, "query"))
    before = {name: tensor.clone() for name, tensor in embedder.state_dict().items()}
    exact, _ = encoded(embedder, mixed_items, Speed())
    with torch.no_grad():
        forward = embedder(batch)

    rounded, _ = encoded(embedder, mixed_items, Speed(autocast="bfloat16"))

    assert rounded.dtype == torch.float32
    assert not torch.allclose(rounded, exact, atol=1e-5, rtol=0)
    assert (rounded - exact).abs().max() < 3e-2
    assert (rounded * exact).sum(-1).min() > 0.998
    assert torch.allclose(rounded.norm(dim=-1), torch.ones(len(rounded)), atol=1e-6)
    assert all(torch.equal(tensor, before[name]) for name, tensor in embedder.state_dict().items())
    with torch.no_grad():
        assert torch.equal(embedder(batch), forward)


def test_a_template_is_rendered_once_for_each_build_of_a_conversation(picture, fresh_embedder):
    embedder = fresh_embedder("qwen2_vl")
    texts = [f"word {i}" for i in range(5)]
    shown = [{"image": picture(56, 56, seed), "text": "and {{ words }}"} for seed in range(3)]

    with counting() as work:
        embedder.encode([*texts, *shown, *texts])

    # words alone, and a picture before words
    assert work["templates_rendered"] == 2


def test_a_rendered_template_gives_the_row_that_rendering_it_again_gives(mixed_items, fresh_embedder):
    preprocessor = fresh_embedder("qwen2_vl").backbone.preprocessor
    first = [preprocessor(item, "query") for item in mixed_items]

    again = [preprocessor(item, "query") for item in mixed_items]

    preprocessor._rendered.clear()
    anew = [preprocessor(item, "query") for item in mixed_items]
    assert [row.fingerprint for row in again] == [row.fingerprint for row in first]
    assert [row.fingerprint for row in anew] == [row.fingerprint for row in first]


def test_another_template_is_not_answered_with_the_one_before(fresh_embedder):
    embedder = fresh_embedder("qwen2_vl")
    item = Item.of("a red circle")
    before = embedder.prepare([item], "query")[0]

    embedder.backbone.preprocessor.tokenizer.chat_template = (
        "{% for m in messages %}{{ m.content[0].text }}{% endfor %}"
    )

    after = embedder.prepare([item], "query")[0]
    bare = fresh_embedder("qwen2_vl", prompt=RawPrompt()).prepare([item], "query")[0]
    assert len(before) > len(after)
    assert after.ids.tolist() == bare.ids.tolist()


def test_an_autocast_that_is_on_already_stays_on(embedder, mixed_items):
    exact = embedder.encode(mixed_items)

    with torch.autocast("cpu", torch.bfloat16):
        rounded = embedder.encode(mixed_items)

    assert 1e-5 < (rounded - exact).abs().max() < 3e-2


def test_packed_rows_are_counted_by_their_own_tokens(embedder, monkeypatch):
    lengths = [len(row) for row in embedder.prepare([Item.of(text) for text in UNEVEN], "query")]
    runs = []
    hook = embedder.backbone.language_model.register_forward_pre_hook(lambda *_: runs.append(1))
    try:
        padded, _ = encoded(embedder, UNEVEN, Speed(), batch_tokens=sum(lengths))
        in_padding = len(runs)
        monkeypatch.setattr(embedder.backbone, "speed", Speed(packing="on"))
        packed, work = encoded(embedder, UNEVEN, Speed(packing="on"), batch_tokens=sum(lengths))
    finally:
        hook.remove()

    assert torch.allclose(packed, padded, atol=SAME, rtol=0)
    assert (in_padding, len(runs) - in_padding) == (2, 1)
    assert work["padded_tokens"] == work["language_tokens"] == sum(lengths)
