"""A protocol's id changes with whatever changes a score, and with nothing else."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from mmembed.evaluation.benchmark import Passing, Task, Wording
from mmembed.evaluation.protocol import protocol_id, protocol_of
from mmembed.evaluation.retrieval_set import RetrievalSet, Sample
from mmembed.items import Item

FIELDS = {"name": "captions", "data": "toy/captions", "metric": "hit@1"}


def a_set(text="red", grades=(2.0, 1.0), groups=()):
    """Two queries and three targets; ``grades`` are given in this order."""
    relevance = dict(zip(("d1", "d2"), grades, strict=True))
    return RetrievalSet(
        {"q1": Item.of(text), "q2": Item.of("blue")},
        {name: Item.of(name) for name in ("d1", "d2", "d3")},
        {"q1": relevance, "q2": {"d3": 1.0}},
        groups={query: {"kind": (group,)} for query, group in zip(("q1", "q2"), groups, strict=False)},
    )


def id_of(data=None, sample=None, **fields):
    return protocol_id(protocol_of(Task(**FIELDS | fields), data or a_set(), sample))


def reordered():
    data = a_set()
    return replace(data, relevance={"q1": {"d2": 1.0, "d1": 2.0}, "q2": {"d3": 1.0}})


@pytest.mark.parametrize(
    "change",
    [
        {"metric": "hit@5"},
        {"ks": (1, 5)},
        {"macro": "category"},
        {"candidates": "local"},
        {"ties": "pessimistic"},
        {"ndcg_fault_seed": 0},
        {"query_instruction": ""},
        {"target_instruction": "Represent."},
        {"query_layout": "{instruction} {text}"},
        {"target_layout": "{media} {text}"},
        {"prompts": "2"},
        {"query_regions": "crop"},
        {"query_regions": "words"},
        {"query_regions": "both"},
        {"reference": "removed"},
        {"join": "searle"},
        {"query_text": "find {text}"},
        {"target_text": "Describe it."},
        {"data": a_set(text="green")},
        {"data": a_set(grades=(1.0, 2.0))},
        {"sample": Sample(5)},
    ],
)
def test_what_changes_a_score_changes_the_id(change):
    assert id_of(**change) != id_of()


@pytest.mark.parametrize(
    "change",
    [
        {"name": "other"},
        {"modality": "image", "category": "QA"},
        {"published_as": "captions-fixed"},
        {"wordings": {"old": Wording(query_instruction="")}},
        {"data": a_set(groups=("a", "b"))},
        {"data": reordered()},
        {"revision": a_set().fingerprint()},
        {"blind": ("grey_image",)},
        {"blind_targets": ("blank_page",)},
        {"passing": Passing()},
        {"interval": "pictures"},
        {"region_words": "{x0} {y0} {x1} {y1}"},
    ],
)
def test_what_only_shows_a_score_keeps_the_id(change):
    assert id_of(**change) == id_of()


def test_groups_are_a_part_only_of_scores_over_groups():
    ids = [id_of(a_set(groups=groups), macro="kind") for groups in (("a", "b"), ("a", "a"))]

    assert ids[0] != ids[1]


def test_the_order_of_labels_and_the_python_are_a_part_only_of_the_published_fault(monkeypatch):
    right, reversed_ = (id_of(data, ndcg_fault_seed=3) for data in (a_set(), reordered()))

    assert right != reversed_
    monkeypatch.setattr(
        "mmembed.evaluation.protocol.sys", SimpleNamespace(version_info=SimpleNamespace(major=3, minor=99))
    )
    assert id_of(ndcg_fault_seed=3) != right


def test_references_are_a_part_only_where_they_are_removed():
    sets = [replace(a_set(), references={"q1": [name], "q2": []}) for name in ("d2", "d3")]

    assert len({id_of(data, reference="removed") for data in sets}) == 2
    assert {id_of(data) for data in sets} == {id_of()}


def test_groups_of_candidates_are_no_part():
    own = {"q1": ["d1", "d2", "d3"], "q2": ["d3"]}
    data = replace(a_set(), candidates=own)
    grouped = replace(data, candidate_groups={"q1": {"swap": {"object": ("d3",)}}, "q2": {}})

    assert id_of(grouped) == id_of(data)


def test_the_words_of_a_region_are_a_part_only_where_they_are_said():
    ids = [id_of(query_regions=form, region_words=f"{word}: {{x0}} {{y0}} {{x1}} {{y1}}")
           for form in ("words", "crop") for word in ("box", "area")]  # fmt: skip

    assert ids[0] != ids[1]
    assert ids[2] == ids[3]


def test_where_the_data_lie_is_no_part():
    assert protocol_id(protocol_of(Task(name="t", data="elsewhere", metric="hit@1"), a_set())) == id_of()


def test_samples_of_another_seed_are_other_protocols():
    assert id_of(sample=Sample(5, seed=1)) != id_of(sample=Sample(5))


def test_an_id_is_twelve_hex_digits_of_the_canonical_json():
    assert protocol_id({"b": 1, "a": None}) == protocol_id({"a": None, "b": 1})
    # printf '{"a":null,"b":1}' | sha256sum
    assert protocol_id({"b": 1, "a": None}) == "c0bf82ad036c"


def test_the_published_fault_is_no_part_where_no_grades_differ():
    same = a_set(grades=(1.0, 1.0))

    assert id_of(same, ndcg_fault_seed=3) == id_of(same)
    assert protocol_of(Task(**FIELDS, ndcg_fault_seed=3), same)["ndcg_fault_seed"] is None
    assert protocol_of(Task(**FIELDS, ndcg_fault_seed=3), a_set())["ndcg_fault_seed"] == 3
