"""What is not cached is explained by what differs."""

import io

import pytest
import torch
from rich.console import Console

from mmembed.evaluation.benchmark import Task
from mmembed.evaluation.crew import key_of
from mmembed.evaluation.misses import CACHED, NEW, OTHER_WORDS, explain_task, misses_table
from mmembed.evaluation.retrieval_set import RetrievalSet
from mmembed.index.embedding_cache import EmbeddingCache
from mmembed.items import Image, Item, Region

OURS = {"weights": "w1", "backbone.max_pixels": "3136", "adapter": "none"}


@pytest.fixture
def cache(tmp_path):
    return EmbeddingCache(tmp_path, max_bytes=1 << 20)


def a_set(query="red", target="a red thing"):
    return RetrievalSet({"q": Item.of(query)}, {"d": Item.of(target)}, {"q": {"d": 1.0}})


def keep(cache, parts, *items):
    keys = [key_of(item, side) for item, side in items]
    cache.space(parts).add(keys, torch.ones(len(keys), 2))


def explained(cache, retrieval_set=None, **fields):
    space = cache.space(OURS)
    others = [other for other in cache.spaces() if other.name != space.name]
    task = Task(name="t", data="t", metric="hit@1", **fields)
    found = explain_task(task, retrieval_set or a_set(), space, others)
    return {side: dict(reasons) for side, reasons in found.items()}


def test_what_is_there_and_what_never_was(cache):
    keep(cache, OURS, (Item.of("red"), "query"))

    assert explained(cache) == {"query": {CACHED: 1}, "target": {NEW: 1}}


def test_another_model_is_named_by_what_differs_most_alike_first(cache):
    for parts in ({"weights": "w9", "adapter": "a9"}, OURS | {"backbone.max_pixels": "12544"}):
        keep(cache, parts, (Item.of("red"), "query"))

    found = explained(cache)["query"]

    assert found == {"embedded by another model: backbone.max_pixels 12544 -> 3136": 1}


def test_another_instruction_is_told_from_new_content(cache):
    keep(cache, OURS, (Item.of("red", "Find it."), "query"), (Item.of("a red thing"), "query"))

    assert explained(cache) == {"query": {OTHER_WORDS: 1}, "target": {OTHER_WORDS: 1}}
    assert explained(cache, query_instruction="Find it.")["query"] == {CACHED: 1}
    assert explained(cache, a_set(query="blue"), query_instruction="Find it.")["query"] == {NEW: 1}


def test_the_table_shows_task_side_number_and_reason(cache):
    found = {"t": explain_task(Task(name="t", data="t", metric="hit@1"), a_set(), cache.space(OURS), [])}
    console = Console(width=90, record=True, file=io.StringIO())

    console.print(misses_table(found))

    text = console.export_text()
    assert all(words in text for words in ("task", "query", "target", "never embedded", "1"))


def test_a_query_is_looked_for_in_the_form_that_the_row_shows_it_in(cache, picture):
    query = Item((Image(picture(20, 10), (Region(box=(1.0, 2.0, 5.0, 6.0)),)),), verbatim=False)
    told = Item((Image(query.media[0].source), "1 2 5 6"), verbatim=False)
    data = RetrievalSet({"q": query}, {"d": Item.of("red")}, {"q": {"d": 1.0}})
    keep(cache, OURS, (told, "query"))

    words = {"region_words": "{x0:.0f} {y0:.0f} {x1:.0f} {y1:.0f}"}

    assert explained(cache, data, query_regions="words", **words)["query"] == {CACHED: 1}
    assert explained(cache, data, **words)["query"] == {NEW: 1}
