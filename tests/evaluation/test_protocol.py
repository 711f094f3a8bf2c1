"""A protocol's id changes with whatever changes a score, and with nothing else."""

import pytest

from mmembed.evaluation.benchmark import Passing, Task
from mmembed.evaluation.protocol import protocol_id, protocol_of
from mmembed.evaluation.retrieval_set import Sample

FIELDS = {"name": "captions", "data": "toy/captions", "metric": "hit@1"}


def id_of(revision="r1", sample=None, **fields):
    return protocol_id(protocol_of(Task(**FIELDS | fields), revision, sample))


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
        {"prompts": "2"},
        {"revision": "r2"},
        {"sample": Sample(5)},
    ],
)
def test_what_changes_a_score_changes_the_id(change):
    assert id_of(**change) != id_of()


@pytest.mark.parametrize(
    "change",
    [
        {"name": "other"},
        {"data": "elsewhere/captions"},
        {"blind": ("grey_image",)},
        {"blind_targets": ("blank_page",)},
        {"passing": Passing()},
    ],
)
def test_what_only_shows_a_score_keeps_the_id(change):
    assert id_of(**change) == id_of()


def test_samples_of_another_seed_are_other_protocols():
    assert id_of(sample=Sample(5, seed=1)) != id_of(sample=Sample(5))


def test_an_id_is_twelve_hex_digits_of_the_canonical_json():
    assert protocol_id({"b": 1, "a": None}) == protocol_id({"a": None, "b": 1})
    # printf '{"a":null,"b":1}' | sha256sum
    assert protocol_id({"b": 1, "a": None}) == "c0bf82ad036c"
