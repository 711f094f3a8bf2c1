"""How rows lie when they pass a language model: padded to one length, or packed one behind another."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmembed.models.token_layout import Packing, Padding

some_lengths = st.lists(st.integers(1, 6), min_size=1, max_size=5)


@settings(max_examples=60, deadline=None)
@given(lengths=some_lengths, side=st.sampled_from(["left", "right"]))
def test_padding_places_each_row_at_its_side_and_back(lengths, side):
    flat = torch.randn(sum(lengths), 2)
    padding = Padding(torch.tensor(lengths), side)

    block = padding.pad(flat)

    longest = max(lengths)
    for row, (tokens, length) in enumerate(zip(flat.split(lengths), lengths, strict=True)):
        place = slice(longest - length, longest) if side == "left" else slice(0, length)
        expected = torch.zeros(longest, 2)
        expected[place] = tokens
        assert torch.equal(block[row], expected)
        assert padding.mask()[row].tolist() == [place.start <= i < place.stop for i in range(longest)]
    assert torch.equal(padding.unpad(block), flat)


@settings(max_examples=60, deadline=None)
@given(lengths=some_lengths)
def test_packing_is_one_line_and_says_where_rows_begin(lengths):
    flat = torch.randn(sum(lengths), 2)
    packing = Packing(torch.tensor(lengths))

    ends = packing.segments["cu_seq_lens_q"]

    assert packing.pad(flat).shape == (*packing.shape, 2) == (1, sum(lengths), 2)
    assert torch.equal(packing.unpad(packing.pad(flat)), flat)
    assert [ends[i + 1] - ends[i] for i in range(len(lengths))] == lengths
    assert ends.dtype == torch.int32
    assert packing.longest == packing.segments["max_length_q"] == max(lengths)
    assert packing.mask().all()


@settings(max_examples=60, deadline=None)
@given(lengths=some_lengths, side=st.sampled_from(["left", "right"]), drawn=st.data())
def test_both_know_where_a_token_of_each_row_stands(lengths, side, drawn):
    flat, starts = torch.randn(sum(lengths), 2), torch.tensor([0, *lengths]).cumsum(0)[:-1]
    places = torch.tensor([drawn.draw(st.integers(0, length - 1)) for length in lengths])
    wanted = flat[starts + places]

    for layout in (Padding(torch.tensor(lengths), side), Packing(torch.tensor(lengths))):
        lines = layout.rows[starts] if len(layout.pad(flat)) > 1 else 0
        assert torch.equal(layout.pad(flat)[lines, layout.columns_at(places)], wanted)
        of_each = lines if isinstance(lines, int) else layout.rows
        assert torch.equal(layout.pad(flat)[of_each, layout.columns], flat)
        assert layout.rows.tolist() == [row for row, length in enumerate(lengths) for _ in range(length)]
