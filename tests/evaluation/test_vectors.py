"""Queries and targets of a task, seen and blinded."""

from dataclasses import replace

import pytest
import torch

from mmembed.counters import counting
from mmembed.errors import InputError
from mmembed.evaluation.benchmark import Task
from mmembed.evaluation.crew import Crew
from mmembed.evaluation.evaluate import evaluate_task
from mmembed.evaluation.retrieval_set import RetrievalSet
from mmembed.evaluation.vectors import asked, embed_task, shown
from mmembed.items import Image, Item, Region
from mmembed.media.settings import MediaSettings
from tests.evaluation import toy


def a_set(picture):
    words = ["red", "blue", "red green", "blue green"]
    return RetrievalSet(
        {f"q{i}": Item.of(text) for i, text in enumerate(words)},
        {f"d{i}": Item.of(text) for i, text in enumerate([*words, "black"])},
        {f"q{i}": {f"d{i}": 1.0} for i in range(4)},
    )


def a_task(**fields):
    return Task(**{"name": "t", "data": "t", "metric": "hit@1"} | fields)


def test_each_blinding_has_vectors_of_its_own_and_leaves_the_other_side_alone(picture):
    vectors = embed_task(
        a_task(blind=("shuffle_words", "no_text"), blind_targets=("shuffle_words",)),
        a_set(picture), Crew(toy_encode), MediaSettings(),
    )  # fmt: skip

    assert vectors.queries.shape == (4, 16)
    assert vectors.targets.shape == (5, 16)
    assert list(vectors.blinded) == ["shuffle_words", "no_text", "targets.shuffle_words"]
    queries, targets = vectors.blinded["no_text"]
    assert targets is vectors.targets
    assert not torch.equal(queries, vectors.queries)
    assert vectors.blinded["targets.shuffle_words"][0] is vectors.queries


def toy_encode(items, *, side):
    return toy.encode([Item.of(item.text.strip() or "nothing") for item in items], side=side)


def test_the_highest_blinded_score_is_the_blind_score(picture):
    task = a_task(blind=("shuffle_words", "no_text"))

    result = evaluate_task(task, a_set(picture), Crew(toy_encode))

    # the order of words means nothing to this model; without words every query is the same
    assert result.score == result.blinds["shuffle_words"] == 1.0
    assert result.blinds["no_text"] <= 0.25
    assert result.row()["blind"] == 1.0
    assert result.row()["blinds"] == result.blinds


def test_what_a_blinding_leaves_alone_is_embedded_once(picture):
    with counting() as work:
        embed_task(a_task(blind=("shuffle_words",)), a_set(picture), Crew(toy_encode), MediaSettings())

    # two of the four queries have one word
    assert work["language_rows"] == 5 + 4 + 2


@pytest.mark.parametrize(("field", "name"), [("blind", "shuffle_frames"), ("blind_targets", "grey_image")])
def test_a_blinding_that_changes_nothing_is_refused(picture, field, name):
    with pytest.raises(InputError, match=rf"t.{field}: expected a blinding that changes something, got {name}"):
        embed_task(a_task(**{field: (name,)}), a_set(picture), Crew(toy_encode), MediaSettings())


PICTURE = Item((Image("a.png"), "a cat"), instruction="Own:", verbatim=False, layout="{media}{instruction}{text}")


@pytest.mark.parametrize(
    ("fields", "instruction", "layout"),
    [
        ({}, "Own:", PICTURE.layout),
        ({"query_instruction": "Row:"}, "Row:", PICTURE.layout),
        ({"query_instruction": ""}, None, PICTURE.layout),
        ({"query_layout": "{media} {text} {instruction}"}, "Own:", PICTURE.layout),
        ({"query_instruction": "", "query_layout": "{media} {text}"}, None, PICTURE.layout),
        ({"target_instruction": "Row:", "target_layout": "{text}"}, "Own:", PICTURE.layout),
    ],
)
def test_a_row_words_and_lays_out_the_items_of_a_side(fields, instruction, layout):
    (item,) = asked(a_task(**fields), "query", {"q": PICTURE}).values()

    assert (item.content, item.instruction, item.layout) == (PICTURE.content, instruction, layout)


def test_a_row_lays_out_the_items_that_have_no_layout_of_their_own():
    task = a_task(query_layout="{media} {text} {instruction}", query_instruction="Row:")
    own = replace(PICTURE, instruction=None, layout="{media}\n{text}")

    items = asked(task, "query", {"plain": replace(PICTURE, layout=None), "own": own})

    assert (items["plain"].instruction, items["plain"].layout) == ("Row:", "{media} {text} {instruction}")
    assert items["own"] == own  # its layout has no place for the row's instruction


def test_a_layout_that_would_lose_words_names_task_and_item():
    task = a_task(target_layout="{media} {text}")

    with pytest.raises(InputError, match=r"^t: target d7: layout: expected a place for the item's instruction"):
        asked(task, "target", {"d7": replace(PICTURE, layout=None)})


def pointing(picture):
    """Two queries into one picture; the words of their boxes are all that a model of words sees."""
    boxes = [(1.0, 2.0, 5.0, 6.0), (8.0, 2.0, 12.0, 6.0)]
    drawn = picture(20, 10)
    queries = {
        f"q{i}": Item((Image(drawn, (Region(box=box),)),), "find", verbatim=False) for i, box in enumerate(boxes)
    }
    return RetrievalSet(queries, {"d": Item.of("red")}, {name: {"d": 1.0} for name in queries})


WORDS = "{x0:.0f} {y0:.0f} {x1:.0f} {y1:.0f}"


def seen_by(task, data):
    """What the encoder is given as queries, in order, each once."""
    seen = []

    def encode(items, *, side):
        seen.extend(items if side == "query" else ())
        return toy.encode([Item.of(item.text.strip() or "nothing") for item in items], side=side)

    embed_task(task, data, Crew(encode), MediaSettings())
    return sorted(seen, key=lambda item: (item.text, len(item.media[0].regions) if item.media else 0))


def test_queries_are_embedded_in_the_form_of_the_row_and_blinded_ones_too(picture):
    task = a_task(query_regions="words", region_words=WORDS, blind=("wrong_region", "coordinates"))

    seen = seen_by(task, pointing(picture))

    # the wrong region of one is the region of the other, and coordinates are the form itself: two rows in all
    assert [(item.text, item.media[0].regions) for item in seen] == [("1 2 5 6", ()), ("8 2 12 6", ())]


def test_another_form_of_the_region_is_shown_and_counts_as_no_blindness(picture):
    task = a_task(region_words=WORDS, blind=("no_region", "coordinates"))

    def encode(items, *, side):
        pointed = [item.text.strip() or (item.media and item.media[0].regions) for item in items]
        words = [
            item.text if side == "target" else "red" if p else "blue" for item, p in zip(items, pointed, strict=True)
        ]
        return toy.encode([Item.of(word) for word in words], side=side)

    data = replace(pointing(picture), corpus={"d": Item.of("red"), "e": Item.of("blue")})
    row = evaluate_task(task, data, Crew(encode)).row()

    assert row["blinds"] == {"no_region": 0.0, "coordinates": 1.0}
    assert row["blind"] == 0.0


def test_the_words_may_stand_beside_the_region(picture):
    data = pointing(picture)

    seen = seen_by(a_task(query_regions="both", region_words=WORDS), data)

    assert [item.media[0].regions for item in seen] == [item.media[0].regions for item in data.queries.values()]
    assert [item.text for item in seen] == ["1 2 5 6", "8 2 12 6"]


def test_targets_keep_their_regions_whatever_the_form_of_queries(picture):
    item = next(iter(pointing(picture).queries.values()))

    assert shown(a_task(query_regions="crop"), "target", item, MediaSettings()) == item


@pytest.mark.parametrize(("fields", "name"), [({"query_regions": "words"}, "query q0"),
                                              ({"blind": ("coordinates",)}, "query q0 under coordinates")])  # fmt: skip
def test_words_without_a_place_in_the_layout_name_task_and_query(picture, fields, name):
    task = a_task(query_layout="{media}{instruction}", **fields)

    with pytest.raises(InputError, match=rf"^t: {name}: layout: expected a place for the item's text"):
        embed_task(task, pointing(picture), Crew(toy_encode), MediaSettings())
