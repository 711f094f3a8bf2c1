"""Layouts: what a raw prompt writes, slot by slot, and what cannot be one."""

import pytest

from mmembed import Image, Item
from mmembed.data.tables import open_table, read_items, write_items, write_pairs
from mmembed.errors import InputError
from mmembed.items import Pair, pieces_of
from mmembed.models.prompts import Kind, render
from mmembed.models.settings import ChatPrompt, RawPrompt

LINES = "{media}\n{instruction} {text}\n"
PICTURE = Image("a.png")


def written(item, style=None):
    words = ["<I>"] * len(item.media)
    chat = "\n".join
    template = lambda messages, opens: chat("".join(part["text"] for part in m["content"]) for m in messages)  # noqa: E731
    return "".join(s.text for s in render(item, style or RawPrompt(), words, template, image_word="<image>"))


def laid_out(layout, *content, instruction=None):
    return Item(content, instruction=instruction, verbatim=False, layout=layout)


@pytest.mark.parametrize(
    ("item", "prompt"),
    [
        (laid_out(LINES, PICTURE, "What is it?", instruction="Answer:"), "<I>\nAnswer: What is it?\n"),
        (laid_out(LINES, PICTURE, instruction="Classify it"), "<I>\nClassify it\n"),
        (laid_out("{image_token}\n{instruction} {text}\n", "Who?", instruction="Find:"), "<image>\nFind: Who?\n"),
        (laid_out("{image_token}{text}", "\nFind it."), "<image>\nFind it."),
        (laid_out(" {text}", "query"), " query"),
        (laid_out("{media} ", PICTURE), "<I> "),
        (laid_out("{media}{text}", PICTURE, PICTURE, "both"), "<I><I>both"),
        (laid_out("{media}\n{instruction} {text}", PICTURE, ""), "<I>\n"),
        (laid_out("say: {text}!", "braces {media} stay"), "say: braces {media} stay!"),
    ],
)
def test_a_raw_prompt_follows_the_layout(item, prompt):
    assert written(item) == prompt


def test_segments_of_a_layout_say_what_they_are():
    item = laid_out(LINES, PICTURE, "What is it?", instruction="Answer:")

    kinds = [(s.kind, s.text) for s in render(item, RawPrompt(suffix="<end>"), ["<I>"])]

    assert kinds == [
        (Kind.IMAGE, "<I>"),
        (Kind.TEMPLATE, "\n"),
        (Kind.INSTRUCTION, "Answer:"),
        (Kind.TEMPLATE, " "),
        (Kind.TEXT, "What is it?"),
        (Kind.TEMPLATE, "\n"),
        (Kind.TEMPLATE, "<end>"),
    ]


def test_the_word_of_an_absent_picture_is_a_word_like_others():
    (word, *_) = render(laid_out("{image_token}{text}", "x"), RawPrompt(), [], image_word="<image>")

    assert (word.text, word.kind, word.medium) == ("<image>", Kind.TEXT, None)


def test_a_chat_template_has_its_own_order():
    item = laid_out("{image_token}\n{instruction} {text}\n", "Who?", instruction="Find:")

    assert written(item, ChatPrompt()) == "Find:\nWho?"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: pieces_of("{txt}"), "layout: expected known slots, got '{txt}'; did you mean 'text'?"),
        (lambda: pieces_of("{text} {text}"), "layout: expected each slot once, got '{text}' twice"),
        (lambda: laid_out("{media}", PICTURE, "lost"), "layout: expected a place for the item's text, '{text}'"),
        (lambda: laid_out("{text}", PICTURE, "x"), "layout: expected a place for the item's media, '{media}'"),
        (lambda: laid_out("{text}", "x", instruction="Find:"),
         "layout: expected a place for the item's instruction, '{instruction}', got '{text}'"),
    ],
)  # fmt: skip
def test_a_layout_that_cannot_be_read_or_loses_something_is_refused(make, message):
    with pytest.raises(InputError) as error:
        make()

    assert message in str(error.value)


def test_a_layout_changes_the_name_of_an_item_and_not_of_its_content():
    plain, other = Item.of("x"), Item.of({"text": "x", "layout": "{text}\n"})

    assert other.layout == "{text}\n"
    assert other.fingerprint() != plain.fingerprint()
    assert other.content_fingerprint() == plain.content_fingerprint()
    assert Item.of({"content": ["x"], "layout": "{text}"}).layout == "{text}"


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_tables_keep_layouts(tmp_path, suffix):
    (tmp_path / "a.png").write_bytes(b"x")
    items = [
        laid_out("{image_token}{text}", "\nFind it."),
        laid_out(LINES, Image(str(tmp_path / "a.png")), "What?", instruction="Answer:"),
        Item(("a", "b"), layout="{text}"),
        Item.of("no layout"),
    ]
    write_items(tmp_path / f"items.{suffix}", ((str(i), item) for i, item in enumerate(items)))
    write_pairs(tmp_path / f"pairs.{suffix}", [Pair(item, (item,)) for item in items])

    assert [item for _, item in read_items(tmp_path / f"items.{suffix}")] == items
    assert [pair.query for pair in open_table(tmp_path / f"pairs.{suffix}")] == items
    assert [pair.positives for pair in open_table(tmp_path / f"pairs.{suffix}")] == [(item,) for item in items]
