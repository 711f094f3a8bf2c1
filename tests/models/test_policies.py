"""Attention policies: what each says to a kernel, against rules written out token by token."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmembed.errors import InputError
from mmembed.models.policies import PREFIX, attention_mask, check_window, kernel_switch, visible, why_unpackable
from mmembed.models.prompts import Kind
from mmembed.models.sequence import Sequence
from mmembed.models.settings import QwenVL
from mmembed.models.token_layout import Packing, Padding

rows = st.lists(st.lists(st.sampled_from(list(Kind)), min_size=1, max_size=5), min_size=1, max_size=3)


def sequence_of(kinds):
    flat = torch.tensor([kind for row in kinds for kind in row], dtype=torch.uint8)
    total = len(flat)
    return Sequence(
        embeds=torch.zeros(total, 4),
        ids=torch.arange(total),
        lengths=torch.tensor([len(row) for row in kinds]),
        positions=torch.arange(total).expand(3, -1),
        kinds=flat,
        visual=torch.zeros(total, dtype=torch.bool),
        is_query=torch.ones(len(kinds), dtype=torch.bool),
    )


def may_see(policy, kinds, i, j):
    if policy == "bidirectional":
        return True
    return j <= i or (kinds[i] in PREFIX and kinds[j] in PREFIX)


@settings(deadline=None)
@given(kinds=rows, policy=st.sampled_from(["bidirectional", "prefix"]), side=st.sampled_from(["left", "right"]))
def test_real_tokens_see_what_the_policy_says_and_no_padding(kinds, policy, side):
    sequence = sequence_of(kinds)
    padding = Padding(sequence.lengths, side)

    seen = visible(policy, sequence, padding)

    longest = max(map(len, kinds))
    for row, row_kinds in enumerate(kinds):
        start = longest - len(row_kinds) if side == "left" else 0
        for i in range(len(row_kinds)):
            expected = {start + j for j in range(len(row_kinds)) if may_see(policy, row_kinds, i, j)}
            assert set(seen[row, 0, start + i].nonzero()[:, 0].tolist()) == expected
    assert seen.any(-1).all()


def test_the_eager_kernel_is_told_by_what_it_adds():
    sequence = sequence_of([[Kind.TEXT] * 3, [Kind.TEXT]])
    padding = Padding(sequence.lengths)
    told = {
        kernel: attention_mask(
            QwenVL(path="x", attention=kernel, attention_policy="bidirectional"), sequence, padding, torch.float32
        )
        for kernel in ("sdpa", "eager")
    }

    assert told["sdpa"].dtype == torch.bool
    assert told["eager"].dtype == torch.float32
    assert torch.equal(told["eager"] == 0, told["sdpa"])
    assert told["eager"].min() == torch.finfo(torch.float32).min


CAUSAL = [("right", (3, 1), False), ("left", (3, 1), True), ("left", (2, 2), False)]


@pytest.mark.parametrize(("side", "lengths", "needed"), CAUSAL)
def test_a_causal_batch_is_masked_only_where_padding_comes_first(side, lengths, needed):
    sequence = sequence_of([[Kind.TEXT] * n for n in lengths])

    mask = attention_mask(QwenVL(path="x", padding_side=side), sequence, Padding(sequence.lengths, side), torch.float32)

    assert (mask is not None) == needed


def test_the_published_fault_leaves_only_a_batch_without_padding_causal():
    fault = QwenVL(path="x", attention_policy="bidirectional", unpadded_causal=True)
    dense, ragged = sequence_of([[Kind.TEXT] * 2] * 2), sequence_of([[Kind.TEXT] * 2, [Kind.TEXT]])

    assert attention_mask(fault, dense, Padding(dense.lengths), torch.float32) is None
    assert attention_mask(fault, ragged, Padding(ragged.lengths), torch.float32).dtype == torch.bool


def test_only_a_kernel_that_takes_no_mask_is_told_by_an_argument():
    bidirectional = {"path": "x", "attention_policy": "bidirectional"}
    padding = Padding(torch.tensor([2, 1]))

    assert kernel_switch(QwenVL(attention="flash_attention_2", **bidirectional), padding) == {"is_causal": False}
    assert kernel_switch(QwenVL(**bidirectional), padding) == {}
    assert kernel_switch(QwenVL(path="x", attention="flash_attention_2"), padding) == {}


@pytest.mark.parametrize("kernel", ["sdpa", "flash_attention_2"])
def test_packed_rows_are_told_by_arguments_and_no_mask(kernel):
    ragged = sequence_of([[Kind.TEXT] * 2, [Kind.TEXT]])
    packing = Packing(ragged.lengths)
    causal, bidirectional = (
        QwenVL(path="x", attention=kernel, attention_policy=p) for p in ("causal", "bidirectional")
    )

    assert attention_mask(causal, ragged, packing, torch.float32) is None
    assert attention_mask(bidirectional, ragged, packing, torch.float32) is None
    assert kernel_switch(causal, packing) == packing.segments
    assert kernel_switch(bidirectional, packing) == packing.segments | {"is_causal": False}


@pytest.mark.parametrize(
    ("backbone", "window", "longest", "why"),
    [
        ({}, None, 999, None),
        ({"attention": "flash_attention_2"}, None, 999, None),
        ({"attention_policy": "bidirectional"}, 5, 5, None),
        ({}, 4, 5, "a row has 5 tokens, and the model's layers attend to windows of 4"),
        ({"attention": "eager"}, None, 1, "attention: eager cannot be told where rows begin"),
        ({"attention_policy": "prefix"}, None, 1, "attention_policy: prefix needs a mask of each row"),
    ],
)
def test_what_keeps_rows_from_being_packed_is_said(backbone, window, longest, why):
    assert why_unpackable(SimpleNamespace(sliding_window=window), QwenVL(path="x", **backbone), longest) == why


def test_flash_attention_takes_the_padding_only():
    flash = QwenVL(path="x", attention="flash_attention_2", attention_policy="bidirectional")
    ragged = sequence_of([[Kind.TEXT] * 2, [Kind.TEXT]])

    mask = attention_mask(flash, ragged, Padding(ragged.lengths), torch.float32)

    assert mask.tolist() == [[1, 1], [1, 0]]


def test_a_kernel_that_cannot_honour_a_policy_is_refused():
    with pytest.raises(InputError, match=r"attention: expected a kernel that takes a mask.*got flash_attention_2"):
        QwenVL(path="x", attention="flash_attention_2", attention_policy="prefix")
    with pytest.raises(InputError, match=r"unpadded_causal: expected attention_policy: bidirectional and attention: s"):
        QwenVL(path="x", unpadded_causal=True)


@pytest.mark.parametrize(
    ("window", "layer_types", "policy", "longest", "refused"),
    [
        (4, None, "bidirectional", 5, True),
        (4, ["sliding_attention", "full_attention"], "prefix", 5, True),
        (4, ["full_attention"], "bidirectional", 5, False),
        (4, None, "causal", 5, False),
        (5, None, "bidirectional", 5, False),
        (None, None, "bidirectional", 5, False),
    ],
)
def test_a_mask_that_would_undo_a_sliding_window_is_refused(window, layer_types, policy, longest, refused):
    config = SimpleNamespace(sliding_window=window, layer_types=layer_types)
    chosen = QwenVL(path="x", attention_policy=policy)

    if refused:
        with pytest.raises(InputError, match="attention window of 4 tokens, got a row of 5"):
            check_window(config, chosen, longest)
    else:
        check_window(config, chosen, longest)
