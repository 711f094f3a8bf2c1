"""How a row writes queries and targets: joins, words asked with verbatim, and what a blinding leaves."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from mmembed.counters import counting
from mmembed.errors import InputError
from mmembed.evaluation.benchmark import Task
from mmembed.evaluation.crew import Crew
from mmembed.evaluation.retrieval_set import RetrievalSet
from mmembed.evaluation.vectors import embed_task
from mmembed.evaluation.written import written
from mmembed.items import Image, Item
from mmembed.media.settings import MediaSettings
from tests.evaluation import toy

PICTURE = Image("a.png")
DRESS = Item((PICTURE, "is red.", "has sleeves"), instruction="Find it.", verbatim=False)
ASKED = 'Modify this image with "{text}", desribe modified image in one word:'


def a_task(**fields):
    return Task(**{"name": "t", "data": "t", "metric": "hit@1"} | fields)


def contents(task, item, side="query"):
    return [form.content for form in written(task, side, item)]


def test_several_texts_become_one_as_the_join_says():
    assert contents(a_task(join="cirevl"), DRESS) == [(PICTURE, "is red and has sleeves")]


def test_a_join_of_two_orders_writes_both_and_keeps_the_rest_of_the_item():
    forms = written(a_task(join="searle"), "query", DRESS)

    assert [form.content[1] for form in forms] == ["is red and has sleeves", "has sleeves and is red"]
    assert {(form.instruction, form.verbatim, form.content[0]) for form in forms} == {("Find it.", False, PICTURE)}


def test_a_text_that_is_the_same_both_ways_is_written_once():
    assert contents(a_task(join="searle"), replace(DRESS, content=(PICTURE, "is red", ""))) == [(PICTURE, "is red")]


def test_the_joined_text_goes_into_the_rows_words_verbatim():
    (form,) = written(a_task(join="change", query_text=ASKED), "query", DRESS)

    assert form.content == (PICTURE, 'Modify this image with "is red.", desribe modified image in one word:')
    assert form.verbatim


def test_a_query_of_one_text_needs_no_join_for_the_rows_words():
    assert contents(a_task(query_text="<{text}>"), Item.of({"image": PICTURE, "text": "{x}"})) == [(PICTURE, "<{x}>")]


def test_the_rows_words_stand_in_place_of_a_layout():
    item = Item((PICTURE, "red"), verbatim=False, layout="{media}\n{text}")

    (form,) = written(a_task(query_text="so: {text}"), "query", item)

    assert (form.content, form.layout) == ((PICTURE, "so: red"), None)


def test_several_texts_without_a_join_name_the_rows_field():
    with pytest.raises(InputError, match=r"^join: expected how the texts of the query become one, got none, for 2"):
        written(a_task(), "query", DRESS)
    with pytest.raises(InputError, match=r"^join: "):
        written(a_task(query_text="<{text}>"), "query", replace(DRESS, verbatim=True))


def test_the_query_at_fault_is_named():
    queries = {"good": Item.of("red"), "bad": DRESS}
    data = RetrievalSet(queries, {"d": Item.of("red")}, {name: {"d": 1.0} for name in queries})

    with pytest.raises(InputError, match=r"^t: query bad: join: expected how"):
        embed_task(a_task(), data, Crew(toy.encode), MediaSettings())


def test_verbatim_content_of_several_texts_stays_as_it_is_without_a_join():
    item = Item((PICTURE, " or ", PICTURE, " then"))

    assert written(a_task(), "query", item) == (item,)


def test_a_target_of_media_alone_is_followed_by_the_rows_words():
    task = a_task(target_text="\n Describe this image in one word:", join="searle")

    (form,) = written(task, "target", Item.of(PICTURE))

    assert form.content == (PICTURE, "\n Describe this image in one word:")
    assert form.verbatim
    for other in (Item.of("a text"), DRESS):
        assert written(task, "target", other) == (other,)


@pytest.mark.parametrize(
    ("fields", "item", "content"),
    [
        ({"join": "searle"}, Item((PICTURE,), verbatim=False), (PICTURE,)),
        ({"join": "searle", "query_text": "so: {text}"}, Item((PICTURE,), verbatim=False), (PICTURE, "so: ")),
        ({"join": "cirevl"}, Item(("is red", "has sleeves"), verbatim=False), ("is red and has sleeves",)),
        ({"query_text": "so: {text}"}, Item((" ",), verbatim=False), ("so: ",)),
    ],
)
def test_what_a_blinding_left_is_written_without_what_it_took(fields, item, content):
    assert contents(a_task(**fields), item) == [content]


def texts(*several):
    return RetrievalSet(
        {f"q{i}": Item(own, verbatim=False) for i, own in enumerate(several)},
        {"d": Item.of("red"), "e": Item.of("long")},
        {f"q{i}": {"d": 1.0} for i in range(len(several))},
    )


def one(text):
    return toy.encode([Item.of(text)], side="query")[0]


def weighing(factor):
    """A model whose vectors depend on the order of words, and have lengths of their own."""

    def encode(items, *, side):
        rows = toy.encode(items, side=side)
        first = torch.stack([one(item.text.split()[0]) for item in items])
        return (rows + first) * torch.tensor([[1.0 + factor * len(item.text.split()[0])] for item in items])

    return encode


def test_the_vectors_of_two_orders_are_averaged_and_scaled_and_each_text_is_embedded_once():
    encode = weighing(0.5)
    data = texts(("is red", "has sleeves"), ("long", ""), ("has sleeves", "is red"))

    with counting() as work:
        vectors = embed_task(a_task(join="searle"), data, Crew(encode), MediaSettings())

    both = encode([Item.of("is red and has sleeves"), Item.of("has sleeves and is red")], side="query")
    wanted = F.normalize(F.normalize(both, dim=-1).mean(0), dim=0)
    assert torch.allclose(vectors.queries[0], wanted, atol=1e-6)
    assert torch.allclose(vectors.queries[2], wanted, atol=1e-6)
    # one text alone keeps the model's own vector
    assert torch.equal(vectors.queries[1], encode([Item.of("long")], side="query")[0])
    assert work["cache_hits"] == 2


def test_a_join_that_averages_before_scaling_differs_and_all_vectors_are_scaled_after_it():
    encode = weighing(0.5)
    data = texts(("is red", "sleeves"), ("long",))
    crew = Crew(encode, scale=True)

    before = embed_task(a_task(join="e5_v"), data, crew, MediaSettings())
    after = embed_task(a_task(join="searle"), data, crew, MediaSettings())

    both = encode([Item.of("is red, sleeves"), Item.of("sleeves, is red")], side="query")
    assert torch.allclose(before.queries[0], F.normalize(both.mean(0), dim=0), atol=1e-6)
    assert not torch.allclose(before.queries[0], F.normalize(F.normalize(both, dim=-1).mean(0), dim=0), atol=1e-3)
    for vectors in (before.queries, before.targets, after.queries, after.targets):
        assert torch.allclose(vectors.norm(dim=-1), torch.ones(len(vectors)), atol=1e-6)


def test_averaging_before_scaling_refuses_a_model_that_scales():
    with pytest.raises(
        InputError, match=r"^t.join: expected vectors as they are before scaling, .* got vectors of unit"
    ):
        embed_task(a_task(join="e5_v"), texts(("is red", "sleeves")), Crew(toy.encode), MediaSettings())


def test_blinded_queries_of_several_texts_are_joined_too():
    data = texts(("is red", "has sleeves"), ("has sleeves", "is long"))

    vectors = embed_task(a_task(join="cirevl", blind=("shuffle_words",)), data, Crew(weighing(0.5)), MediaSettings())

    shuffled = weighing(0.5)([Item.of("red is and sleeves has")], side="query")[0]
    assert torch.allclose(vectors.blinded["shuffle_words"][0][0], shuffled, atol=1e-6)
