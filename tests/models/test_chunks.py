"""The cutting of rows into chunks."""

from hypothesis import given
from hypothesis import strategies as st

from mmembed.models.chunks import plan_chunks

budgets = st.none() | st.integers(1, 40)


@given(lengths=st.lists(st.integers(1, 20)), max_rows=st.none() | st.integers(1, 6), max_tokens=budgets)
def test_every_row_is_in_one_chunk_and_budgets_hold(lengths, max_rows, max_tokens):
    chunks = plan_chunks(lengths, max_rows=max_rows, max_tokens=max_tokens)

    assert sorted(i for chunk in chunks for i in chunk) == list(range(len(lengths)))
    for chunk in chunks:
        padded = max(lengths[i] for i in chunk) * len(chunk)
        assert max_rows is None or len(chunk) <= max_rows
        assert max_tokens is None or padded <= max_tokens or len(chunk) == 1


@given(lengths=st.lists(st.integers(1, 20), min_size=1), max_rows=st.none() | st.integers(1, 6))
def test_without_a_token_budget_the_order_is_kept(lengths, max_rows):
    chunks = plan_chunks(lengths, max_rows=max_rows)

    assert [i for chunk in chunks for i in chunk] == list(range(len(lengths)))
    assert all(len(chunk) == (max_rows or len(lengths)) for chunk in chunks[:-1])


@given(lengths=st.lists(st.integers(1, 20), min_size=1), max_tokens=st.integers(1, 40))
def test_with_a_token_budget_rows_go_from_long_to_short_and_chunks_are_full(lengths, max_tokens):
    chunks = plan_chunks(lengths, max_tokens=max_tokens)

    taken = [lengths[i] for chunk in chunks for i in chunk]
    assert taken == sorted(lengths, reverse=True)
    for chunk in chunks[:-1]:
        assert lengths[chunk[0]] * (len(chunk) + 1) > max_tokens


def test_no_rows_give_no_chunks_and_no_budget_one():
    assert plan_chunks([]) == []
    assert plan_chunks([3, 1, 2]) == [[0, 1, 2]]
    assert plan_chunks([3, 1, 2], max_tokens=4) == [[0], [2, 1]]


@given(lengths=st.lists(st.integers(1, 20), min_size=1), max_padding=st.sampled_from([0.0, 0.1, 0.3, 0.9]))
def test_no_chunk_pads_more_than_its_share(lengths, max_padding):
    chunks = plan_chunks(lengths, max_padding=max_padding)

    assert sorted(i for chunk in chunks for i in chunk) == list(range(len(lengths)))
    for chunk in chunks:
        real, padded = sum(lengths[i] for i in chunk), max(lengths[i] for i in chunk) * len(chunk)
        assert padded - real <= max_padding * padded + 1e-9
