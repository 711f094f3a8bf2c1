"""Flat rows: collation, padding, and insertion of tokens, against a language model run on the same tokens in place."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmembed import Item
from mmembed.models.prompts import Kind
from mmembed.models.sequence import Insertion, PreparedMedium, Row, Sequence, collate

FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")


@pytest.fixture(scope="module")
def embedded(scratch_embedder, mixed_items):
    """Backbone and embedded sequence of the mixed items."""

    def make(family):
        embedder = scratch_embedder(family)
        batch = collate(embedder.prepare(mixed_items, "query"))
        with torch.no_grad():
            return embedder.backbone, embedder.backbone.embed(batch, embedder.backbone.vision(batch))

    return make


def run(backbone, sequence):
    with torch.no_grad():
        return backbone.run(sequence).states


def remove(sequence, gone):
    """The sequence without the tokens ``gone`` (text, as flat indices)."""
    keep = torch.ones(len(sequence.embeds), dtype=torch.bool)
    keep[gone] = False
    rows = torch.repeat_interleave(torch.arange(len(sequence.lengths)), sequence.lengths)
    return dataclasses.replace(
        sequence,
        embeds=sequence.embeds[keep],
        lengths=torch.bincount(rows[keep], minlength=len(sequence.lengths)),
        positions=sequence.positions[:, keep],
        kinds=sequence.kinds[keep],
        visual=sequence.visual[keep],
    )


def some_tokens(sequence, row, at):
    start = int(sequence.lengths[:row].sum()) + at
    return slice(start, start + 3)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("where", ["start", "middle", "end"])
def test_inserting_the_tokens_that_were_there_changes_nothing(family, where, embedded):
    backbone, stock = embedded(family)
    gone, insertions = [], []
    for row in (1, 4, 5):
        length = int(stock.lengths[row])
        at = {"start": 0, "middle": 1, "end": length - 3}[where]
        tokens = some_tokens(stock, row, at)
        assert not stock.visual[tokens].any()
        gone += range(tokens.start, tokens.stop)
        insertions.append(Insertion(row, at, stock.embeds[tokens], stock.positions[:, tokens], Kind.TEMPLATE))

    again = remove(stock, gone).insert(insertions)

    for field in ("embeds", "lengths", "positions", "visual", "is_query"):
        assert torch.equal(getattr(again, field), getattr(stock, field))
    assert torch.equal(run(backbone, again), run(backbone, stock))


@pytest.mark.parametrize("family", FAMILIES)
def test_inserted_tokens_act_as_embedded_ones(family, scratch_embedder, picture):
    embedder = scratch_embedder(family)
    backbone = embedder.backbone
    item = Item.of({"image": picture(64, 96), "text": "a red circle"})
    long = Item.of({"image": picture(64, 96), "text": "blue blue blue a red circle"})
    row, longer = embedder.prepare([item, long], "query")
    extra = len(longer) - len(row)
    at = next(i for i, (a, b) in enumerate(zip(row.ids, longer.ids, strict=False)) if a != b)
    batch = collate([dataclasses.replace(row, positions=without(longer.positions, at, extra)), longer])

    with torch.no_grad():
        sequence = backbone.embed(batch, backbone.vision(batch))
        words = sequence.embeds[len(row) + at : len(row) + at + extra]
        inserted = sequence.insert([Insertion(0, at, words, longer.positions[:, at : at + extra])])
        states = backbone.run(inserted).states

    assert inserted.lengths.tolist() == [len(longer), len(longer)]
    assert torch.allclose(states[: len(longer)], states[len(longer) :], atol=1e-6, rtol=0)
    assert inserted.kinds[at : at + extra].tolist() == [Kind.REGION] * extra


def without(positions, at, extra):
    return torch.cat([positions[:, :at], positions[:, at + extra :]], dim=1)


def test_forgetting_the_deep_stack_would_be_noticed(embedded):
    backbone, stock = embedded("qwen3_vl")

    without_layers = run(backbone, dataclasses.replace(stock, deepstack=[]))

    assert (without_layers - run(backbone, stock)).abs().max() > 0.01


def toy_sequence(lengths):
    total = sum(lengths)
    tokens = torch.arange(total, dtype=torch.float32)
    return Sequence(
        embeds=tokens[:, None],
        ids=torch.arange(total),
        lengths=torch.tensor(lengths),
        positions=torch.arange(total).expand(3, -1),
        kinds=torch.zeros(total, dtype=torch.uint8),
        visual=torch.arange(total) % 2 == 0,
        is_query=torch.ones(len(lengths), dtype=torch.bool),
    )


def toy_insertion(row, at, values):
    return Insertion(row, at, torch.tensor(values)[:, None], torch.full((3, len(values)), 7))


def test_several_insertions_at_one_place_keep_their_order():
    sequence = toy_sequence([2, 1])

    inserted = sequence.insert(
        [toy_insertion(1, 0, [10.0]), toy_insertion(0, 2, [20.0, 21.0]), toy_insertion(1, 0, [11.0])]
    )

    assert inserted.embeds[:, 0].tolist() == [0, 1, 20, 21, 10, 11, 2]
    assert inserted.lengths.tolist() == [4, 3]


def test_no_insertions_give_the_same_sequence():
    sequence = toy_sequence([2])

    assert sequence.insert([]) is sequence


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_insertion_equals_list_insertion_row_by_row(data):
    lengths = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    sequence = toy_sequence(lengths)
    rows = [list(part) for part in sequence.embeds[:, 0].split(lengths)]
    wanted = [[[] for _ in range(n + 1)] for n in lengths]
    insertions = []
    for i in range(data.draw(st.integers(0, 5))):
        row = data.draw(st.integers(0, len(lengths) - 1))
        at, size = data.draw(st.integers(0, lengths[row])), data.draw(st.integers(0, 3))
        values = [100.0 + 10 * i + k for k in range(size)]
        insertions.append(Insertion(row, at, torch.tensor(values).reshape(-1, 1), torch.full((3, size), 7)))
        wanted[row][at] += values
    expected = [[x for i in range(n + 1) for x in (*wanted[r][i], *rows[r][i : i + 1])] for r, n in enumerate(lengths)]

    inserted = sequence.insert(insertions)

    flat = torch.tensor([x for row in expected for x in row])
    old = flat < 100
    assert inserted.embeds[:, 0].tolist() == flat.tolist()
    assert inserted.lengths.tolist() == [len(row) for row in expected]
    assert inserted.positions[0].tolist() == torch.where(old, flat, 7).long().tolist()
    assert inserted.visual.tolist() == (old & (flat % 2 == 0)).tolist()
    assert inserted.kinds.tolist() == torch.where(old, 0, int(Kind.REGION)).tolist()


@pytest.mark.parametrize(
    ("insertion", "message"),
    [
        (toy_insertion(2, 0, [1.0]), "insertion.row: expected 0 to 1, got 2"),
        (toy_insertion(-1, 0, [1.0]), "insertion.row: expected 0 to 1, got -1"),
        (toy_insertion(1, 2, [1.0]), "insertion.at: expected 0 to 1 in row 1, got 2"),
        (Insertion(0, 0, torch.ones(2, 1), torch.zeros(3, 1)), r"insertion.positions: expected \(3, 2\), got \(3, 1\)"),
    ],
)
def test_an_insertion_outside_the_sequence_is_refused(insertion, message):
    with pytest.raises(ValueError, match=message):
        toy_sequence([2, 1]).insert([insertion])


def toy_row(ids, medium=None, side="query"):
    count = len(ids)
    media = () if medium is None else (medium,)
    return Row(
        torch.tensor(ids), torch.zeros(count, dtype=torch.uint8), torch.zeros(3, count, dtype=torch.long), media, side
    )


def toy_medium(name, frames=1):
    return PreparedMedium(torch.full((4, 3, frames, 2, 2), len(name), dtype=torch.uint8), (1, 2, 2), name, (4, 6))


def test_collation_holds_each_distinct_medium_once_and_widens_stills_beside_clips():
    still, clip = toy_medium("a"), toy_medium("bb", frames=2)

    batch = collate([toy_row([1, 2], still), toy_row([3], clip, "target"), toy_row([4, 5, 6], still)])

    assert batch.media == ["a", "bb"]
    assert batch.slots.tolist() == [0, 1, 0]
    assert batch.lengths.tolist() == [2, 1, 3]
    assert batch.is_query.tolist() == [True, False, True]
    assert batch.pixels.shape == (8, 3, 2, 2, 2)
    assert batch.blocks.tolist() == [4, 4]
    assert batch.sizes.tolist() == [[4, 6], [4, 6]]
    assert (batch.pixels[:4] == 1).all()
    assert len(batch) == 3


def test_a_batch_without_media_has_no_pixels():
    batch = collate([toy_row([1])])

    assert batch.pixels is None
    assert batch.grids.shape == (0, 3)


def test_a_batch_moves_whole():
    moved = collate([toy_row([1, 2], toy_medium("a"))]).to("meta")

    assert {t.device.type for t in (moved.ids, moved.kinds, moved.positions, moved.pixels, moved.slots)} == {"meta"}
    assert moved.media == ["a"]


def test_a_rows_fingerprint_names_tokens_positions_media_and_side():
    rows = [
        toy_row([1, 2]),
        toy_row([1, 3]),
        toy_row([1, 2], side="target"),
        toy_row([1, 2], toy_medium("a")),
        toy_row([1, 2], toy_medium("b")),
        dataclasses.replace(toy_row([1, 2]), positions=torch.ones(3, 2, dtype=torch.long)),
        dataclasses.replace(toy_row([1, 2]), kinds=torch.ones(2, dtype=torch.uint8)),
    ]

    assert len({row.fingerprint for row in rows}) == len(rows)
    assert toy_row([1, 2]).fingerprint == rows[0].fingerprint
