"""Rows of mteb as items: what is there is read in our order, what is not is left out, and nothing is made up."""

import logging

import pytest
from datasets import Dataset, Features, List, Value
from datasets import Image as ImageColumn
from datasets import Video as VideoColumn
from torch.utils.data import DataLoader

from mmembed import Image, Item, Video
from mmembed.errors import InputError
from mmembed.serve.mteb.rows import NOTHING, item_of, named_items
from tests.cases import draw


def test_pictures_stand_before_the_text_whatever_the_order_of_the_columns():
    picture = draw(28, 28)

    assert item_of({"text": "blue", "image": picture}) == Item((Image(picture), "blue"), verbatim=False)
    assert item_of({"image": [picture, picture]}).media == (Image(picture), Image(picture))


def test_what_is_none_or_empty_beside_another_is_left_out():
    picture = draw(28, 28)

    assert item_of({"text": "", "image": picture}).content == (Image(picture),)
    assert item_of({"text": "blue", "image": None, "video": None}).content == ("blue",)
    assert item_of({"text": None, "image": picture}).content == (Image(picture),)


def test_ids_titles_and_instructions_are_no_content():
    row = {"id": "q1", "title": "a title", "query": "find", "instruction": "only red", "text": "find only red"}

    assert item_of(row).content == ("find only red",)
    assert item_of(row).instruction is None


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"text": "a", "audio": {"array": [0.0], "sampling_rate": 16000}}, "audio: expected text, image or video"),
        ({"text": ["a", "b"]}, "text: expected a string, got list"),
        ({"video": [draw(28, 28)]}, "video: expected a clip as the package datasets stores it, got list"),
    ],
)
def test_what_cannot_be_read_is_refused(row, said):
    with pytest.raises(InputError, match=said):
        item_of(row)


def test_clips_are_taken_as_they_are_stored_and_need_no_decoder_of_the_package_datasets():
    clip = b"the bytes of a file"
    columns = Features({"text": Value("string"), "video": VideoColumn()})
    dataset = Dataset.from_dict({"text": ["", "blue"], "video": [{"bytes": clip, "path": None}, None]}, columns)

    items = [item for _, item in named_items(DataLoader(dataset), "Task")]

    assert items == [Item((Video(clip),), verbatim=False), Item(("blue",), verbatim=False)]


def test_rows_keep_the_order_of_the_loader_and_say_their_numbers():
    dataset = Dataset.from_dict({"text": ["a", "b", "c"]})

    named = list(named_items(DataLoader(dataset, batch_size=2), "Task"))

    assert [name for name, _ in named] == ["row 0", "row 1", "row 2"]
    assert [item.text for _, item in named] == ["a", "b", "c"]
    turned = named_items(DataLoader(dataset, sampler=[2, 0]), "Task")
    assert [item.text for _, item in turned] == ["c", "a"]


def test_an_error_names_task_and_row():
    dataset = Dataset.from_dict({"text": [["a"], ["b", "c"]]})

    with pytest.raises(InputError, match="Task: row 0: text: expected a string"):
        list(named_items(DataLoader(dataset), "Task"))


def test_a_row_of_nothing_is_a_space_and_is_said(caplog):
    columns = Features({"text": Value("string"), "image": List(ImageColumn())})
    dataset = Dataset.from_dict({"text": ["", "a"], "image": [None, None]}, columns)

    with caplog.at_level(logging.WARNING):
        items = [item for _, item in named_items(DataLoader(dataset), "Task")]

    assert [item.content for item in items] == [(NOTHING,), ("a",)]
    assert "Task: 1 rows have neither words nor media" in caplog.text
