"""From an Item to a Row: pieces of text between pictures, tokens of a picture, what is refused."""

import pickle

import pytest
import torch

from mmembed import Image, Item, Video
from mmembed.errors import InputError
from mmembed.models.prompts import Kind
from mmembed.models.settings import ChatPrompt, RawPrompt


def text_ids(row):
    return row.ids[row.kinds != Kind.IMAGE].tolist()


def runs(row):
    """How many tokens of pictures stand in a row, for each stretch of them."""
    stretches, last = [], None
    for kind in row.kinds.tolist():
        if kind == Kind.IMAGE:
            stretches = [*stretches[:-1], stretches[-1] + 1] if last == Kind.IMAGE else [*stretches, 1]
        last = kind
    return stretches


def test_a_picture_is_its_merged_patches_and_the_separators(small, picture):
    row = small(prompt=RawPrompt(), num_crops=4).prepare([Item.of({"image": picture(100, 40)})], "query")[0]

    # one row of two tiles, 2 x 2 tokens each, and a separator; another; 2 x 2 tokens of the whole, a separator a line
    assert row.media[0].grid == (1, 1, 2)
    assert runs(row) == [2 * 4 + 2 + 1 + 4 + 2]
    assert row.positions.tolist() == [list(range(len(row)))] * 3


def test_text_between_pictures_is_tokenized_piece_by_piece(open_published, picture):
    embedder = open_published(num_crops=1)
    tokenizer = embedder.backbone.preprocessor.tokenizer
    item = Item((Image(picture(40, 40)), "and", Image(picture(40, 30)), Image(picture(40, 20)), "cat"))

    row = embedder.prepare([item], "query")[0]

    assert text_ids(row) == tokenizer("and").input_ids + tokenizer("cat").input_ids
    assert text_ids(row) != tokenizer("andcat").input_ids
    assert runs(row) == [313, 626]


def test_a_tokenizer_that_begins_a_text_with_a_token_begins_every_piece(copy, edit_json, open_copy, picture, tmp_path):
    edit_json("tokenizer_config.json", add_bos_token=True)
    opened = open_copy(copy, num_crops=1)
    opened.save(tmp_path / "saved")
    item = Item((Image(picture(40, 40)), " cat"))

    for embedder in (opened, open_copy(tmp_path / "saved", num_crops=1)):
        row = embedder.prepare([item], "query")[0]
        assert (row.ids == 1).nonzero()[:, 0].tolist() == [0, 1 + 313]
        assert embedder.prepare([Item.of("cat")], "query")[0].ids.tolist()[0] == 1


def test_a_literal_placeholder_beside_a_picture_is_ordinary_text(small, picture):
    embedder = small(prompt=RawPrompt())
    literal = " <|image_1|> and <|image|>"
    item = Item((Image(picture(56, 56)), literal))

    row = embedder.prepare([item], "query")[0]

    assert text_ids(row) == embedder.backbone.preprocessor.tokenizer(literal).input_ids
    alone, text = embedder.encode([item]), embedder.encode([Item.of(literal)])
    together = embedder.encode([Item.of(literal), item])
    assert torch.allclose(together, torch.cat([text, alone]), atol=1e-5, rtol=0)


def test_a_chat_has_its_pictures_where_its_message_says(small, picture):
    embedder = small()
    item = Item(("see ", Image(picture(56, 56)), " or ", Image(picture(112, 56))), "Represent.")

    row = embedder.prepare([item], "query")[0]

    tokenizer = embedder.backbone.preprocessor.tokenizer
    assert tokenizer.decode(text_ids(row)) == (
        "<|system|>\nRepresent.<|end|>\n<|user|>\nsee  or <|end|>\n<|assistant|>\n"
    )
    assert len(runs(row)) == 2
    kinds = [Kind(int(k)) for k, before in zip(row.kinds, [None, *row.kinds], strict=False) if k != before]
    assert kinds == [
        Kind.TEMPLATE, Kind.INSTRUCTION, Kind.TEMPLATE, Kind.TEXT, Kind.IMAGE, Kind.TEXT, Kind.IMAGE, Kind.TEMPLATE,
    ]  # fmt: skip


def test_a_message_in_parts_is_refused_with_what_to_set(small):
    with pytest.raises(InputError, match=r"prompt\.content: .* set content: text"):
        small(prompt=ChatPrompt()).encode("a red circle")


def test_a_clip_is_refused_in_words(small, picture):
    clip = Item((Video((picture(56, 56), picture(56, 56, 1))),))

    with pytest.raises(InputError, match=r"item 0: item\.video: expected text and pictures.*got a video; give some of"):
        small().encode([clip])


def test_tiles_of_half_a_token_are_refused(fresh_small):
    with pytest.raises(InputError, match=r"image_size: expected tiles of two by two patches of 14 pixels, got 42"):
        fresh_small(vision={"image_size": 42})


def test_the_preprocessor_travels_to_a_worker(small, picture):
    preprocessor = small().backbone.preprocessor
    item = Item.of({"image": picture(56, 84), "text": "blue"})

    again = pickle.loads(pickle.dumps(preprocessor))(item, "query")

    row = preprocessor(item, "query")
    assert again.fingerprint == row.fingerprint
    assert torch.equal(again.media[0].pixels, row.media[0].pixels)


def test_more_tiles_are_another_picture_to_the_caches(small, picture):
    item = Item.of({"image": picture(56, 84)})

    few, many = (small(num_crops=n).prepare([item], "query")[0] for n in (2, 6))

    assert few.media[0].fingerprint != many.media[0].fingerprint
