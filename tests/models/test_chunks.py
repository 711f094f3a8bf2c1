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


@given(
    lengths=st.lists(st.integers(1, 20), min_size=1),
    max_rows=st.none() | st.integers(1, 6),
    max_tokens=st.none() | st.integers(1, 40),
)
def test_unsorted_rows_keep_their_order(lengths, max_rows, max_tokens):
    chunks = plan_chunks(lengths, max_rows=max_rows, max_tokens=max_tokens, sort=False)

    assert [i for chunk in chunks for i in chunk] == list(range(len(lengths)))
    if max_tokens is None:
        assert all(len(chunk) == (max_rows or len(lengths)) for chunk in chunks[:-1])


@given(lengths=st.lists(st.integers(1, 20), min_size=1), max_rows=st.none() | st.integers(1, 6))
def test_sorted_rows_go_from_long_to_short_and_pad_no_more_than_others(lengths, max_rows):
    # of full chunks alone: a last one of few rows may as well hold the longest
    lengths = lengths * (max_rows or 1)
    ordered, given_order = (plan_chunks(lengths, max_rows=max_rows, sort=sort) for sort in (True, False))

    assert [i for chunk in ordered for i in chunk] == sorted(range(len(lengths)), key=lambda i: -lengths[i])
    assert [len(chunk) for chunk in ordered] == [len(chunk) for chunk in given_order]
    padded = [sum(max(lengths[i] for i in chunk) * len(chunk) for chunk in plan) for plan in (ordered, given_order)]
    assert padded[0] <= padded[1]


@given(lengths=st.lists(st.integers(1, 20), min_size=1), max_tokens=st.integers(1, 40))
def test_with_a_token_budget_chunks_are_full(lengths, max_tokens):
    chunks = plan_chunks(lengths, max_tokens=max_tokens)

    for chunk in chunks[:-1]:
        assert lengths[chunk[0]] * (len(chunk) + 1) > max_tokens


def test_no_rows_give_no_chunks_and_no_budget_one():
    assert plan_chunks([]) == []
    assert plan_chunks([3, 1, 2]) == [[0, 2, 1]]
    assert plan_chunks([3, 1, 2], max_tokens=4) == [[0], [2, 1]]


@given(lengths=st.lists(st.integers(1, 20), min_size=1), max_padding=st.sampled_from([0.0, 0.1, 0.3, 0.9]))
def test_no_chunk_pads_more_than_its_share(lengths, max_padding):
    chunks = plan_chunks(lengths, max_padding=max_padding)

    assert sorted(i for chunk in chunks for i in chunk) == list(range(len(lengths)))
    for chunk in chunks:
        real, padded = sum(lengths[i] for i in chunk), max(lengths[i] for i in chunk) * len(chunk)
        assert padded - real <= max_padding * padded + 1e-9
