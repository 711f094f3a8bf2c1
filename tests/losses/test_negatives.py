"""Which targets are negatives of which queries, against loops over every pair."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmembed.losses.global_batch import Answers, GlobalBatch
from mmembed.losses.negatives import above, duplicates, of_one_class, own


def looped(rows, columns, relation):
    return [[bool(relation(i, j)) for j in columns] for i in rows]


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_each_relation_equals_its_loop_on_any_block(batches, choices, source_rules, twin, data):
    candidates, rules = data.draw(batches), data.draw(source_rules)
    slow = twin(candidates, data.draw(choices), rules.values())
    batch = GlobalBatch.of(candidates)
    start = data.draw(st.integers(0, len(slow.queries) - 1))
    rows = range(start, data.draw(st.integers(start + 1, len(slow.queries))))
    block = batch.queries[rows.start : rows.stop]

    found = [
        own(block, batch.targets),
        duplicates(block, batch.targets, batch.answers),
        of_one_class(block, batch.targets),
    ]

    relations = [lambda i, j: slow.owner[j] == i, slow.duplicate, slow.of_one_class]
    for mask, relation in zip(found, relations, strict=True):
        assert mask.tolist() == looped(rows, slow.targets, relation)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_negatives_of_both_directions_equal_loops(batches, choices, source_rules, twin, data):
    candidates, settings, rules = data.draw(batches), data.draw(choices), data.draw(source_rules)
    slow = twin(candidates, settings, rules.values())
    batch, negatives = GlobalBatch.of(candidates), settings.build(rules).negatives

    compared, masked = negatives.of_queries(batch.queries, batch.targets, batch.answers)
    mirrored, mirror_masked = negatives.of_positives(batch.queries, batch.targets, batch.answers)

    assert compared.tolist() == looped(slow.queries, slow.targets, slow.compared)
    assert masked.tolist() == looped(slow.queries, slow.targets, lambda i, j: slow.masked(i, i, j))
    for p in (j for j in slow.targets if slow.positive[j]):
        assert mirrored[:, p].tolist() == [slow.mirror_compared(p, i) for i in slow.queries]
        assert mirror_masked[:, p].tolist() == [slow.masked(slow.owner[p], i, p) for i in slow.queries]
    assert not mirrored[:, ~candidates.positive].any()


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_rows_without_repetition_have_no_duplicates_but_their_own_positives(batches, choices, source_rules, twin, data):
    candidates, settings, rules = data.draw(batches), data.draw(choices), data.draw(source_rules)
    slow = twin(candidates, settings, rules.values())
    batch, negatives = GlobalBatch.of(candidates), settings.build(rules).negatives

    found = negatives.may_be_masked(batch, slice(0, len(slow.queries))).tolist()

    for i in set(slow.queries) - set(found):
        assert not any(slow.masked(i, i, j) for j in slow.targets if j not in slow.positives_of(i))
        assert not any(
            slow.masked(slow.owner[p], i, p) for p in slow.targets if slow.owner[p] != i and slow.positive[p]
        )


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_excluded_is_what_is_neither_own_positive_nor_negative(batches, choices, source_rules, twin, data):
    candidates, settings, rules = data.draw(batches), data.draw(choices), data.draw(source_rules)
    slow = twin(candidates, settings, rules.values())

    excluded = settings.build(rules).excluded(candidates)

    def left_out(i, j):
        return j not in slow.positives_of(i) and (not slow.compared(i, j) or slow.masked(i, i, j))

    assert excluded.tolist() == looped(slow.queries, slow.targets, left_out)


def test_the_margin_is_strict_and_has_no_gradient():
    cosines = torch.tensor([[0.5, 0.25], [0.75, 0.5]], requires_grad=True)

    masked = above(cosines, torch.tensor([[0.25], [0.5]]))

    assert masked.tolist() == [[True, False], [True, False]]
    assert not masked.requires_grad


def test_keys_of_63_bits_that_differ_in_the_last_are_two_contents():
    keys = torch.tensor([2**63 - 1, 2**63 - 2])
    answers = Answers.of(torch.tensor([0, 1]), keys)

    assert answers.held(torch.tensor([0, 1]), answers.contents_of(keys)).tolist() == [[True, False], [False, True]]
    assert answers.contents_of(torch.tensor([5])).tolist() == [2]
