"""From pairs to chunks of distinct rows."""

import pickle

import pytest
import torch

from mmembed import Image, Item, Pair
from mmembed.errors import InputError
from mmembed.items import Negative
from mmembed.models.settings import RawPrompt
from mmembed.training.batches import PairPreparer
from mmembed.training.settings import Chunks


@pytest.fixture(scope="module")
def preprocessor(scratch_embedder):
    return scratch_embedder("qwen2_vl", prompt=RawPrompt()).backbone.preprocessor


@pytest.fixture
def pairs(picture):
    red, blue = Item.of({"image": picture(56, 56)}), Item.of({"image": picture(84, 56), "text": "blue"})
    return [
        Pair(
            Item.of("red?"), (red,), (Negative(blue), Negative(Item.of("no"))), class_id="a", source="s", query_id="0"
        ),
        Pair(Item.of("blue?"), (blue, red), class_id="b", source="s", query_id="1"),
        Pair(Item.of("red?"), (Item.of({"image": picture(56, 56)}),), class_id="a", source="t", query_id="2"),
        Pair(Item.of("what?"), (Item.of("no"),), source="t", query_id="3"),
    ]


def flat_rows(batch):
    """Token ids of all rows, chunk after chunk."""
    return [ids.tolist() for chunk in batch.chunks for ids in chunk.ids.split(chunk.lengths.tolist())]


@pytest.mark.parametrize(
    "chunks", [Chunks(), Chunks(rows=1), Chunks(rows=3), Chunks(tokens=20), Chunks(rows=2, tokens=40)]
)
def test_every_query_and_target_finds_its_row(chunks, pairs, preprocessor):
    batch = PairPreparer(preprocessor, chunks)(7, pairs)

    targets = [item for p in pairs for item in (*p.positives, *(n.item for n in p.negatives))]
    rows = flat_rows(batch)
    for side, items, places in (
        ("query", [p.query for p in pairs], batch.query_rows),
        ("target", targets, batch.target_rows),
    ):
        assert [rows[i] for i in places] == [preprocessor(item, side).ids.tolist() for item in items]
    sides = torch.cat([chunk.is_query for chunk in batch.chunks])
    assert sides[batch.query_rows].all()
    assert not sides[batch.target_rows].any()
    assert batch.number == 7


def test_equal_rows_are_held_once(pairs, preprocessor):
    batch = PairPreparer(preprocessor, Chunks())(0, pairs)

    # queries red? blue? what?, targets red, blue, no
    assert sum(len(chunk) for chunk in batch.chunks) == 6
    assert batch.query_rows[0] == batch.query_rows[2]
    assert batch.target_rows[0] == batch.target_rows[4] == batch.target_rows[5]
    assert batch.target_rows[2] == batch.target_rows[6]


def test_candidates_say_who_is_who(pairs, preprocessor):
    candidates = PairPreparer(preprocessor, Chunks(), ["t", "s"])(0, pairs).candidates

    assert candidates.labels.tolist() == [0, 3, 5, 6]
    assert candidates.owner.tolist() == [0, 0, 0, 1, 1, 2, 3]
    assert candidates.positive.tolist() == [True, False, False, True, True, True, True]
    assert candidates.sources.tolist() == [1, 1, 0, 0]
    queries, targets = candidates.query_keys.tolist(), candidates.target_keys.tolist()
    assert [q == queries[0] for q in queries] == [True, False, True, False]
    assert [[a == b for b in targets].index(True) for a in targets] == [0, 1, 2, 1, 0, 0, 2]
    # the same class name of another source is another class
    classes = candidates.classes.tolist()
    assert len({*classes[:3]}) == 3
    assert min(classes[:3]) >= 0
    assert classes[3] == -1


def test_chunks_keep_their_bounds(pairs, preprocessor):
    by_rows = PairPreparer(preprocessor, Chunks(rows=2))(0, pairs)
    by_tokens = PairPreparer(preprocessor, Chunks(tokens=30))(0, pairs)

    assert [len(chunk) for chunk in by_rows.chunks] == [2, 2, 2]
    assert len(by_tokens.chunks) > 1
    assert all(len(c) * int(c.lengths.max()) <= 30 or len(c) == 1 for c in by_tokens.chunks)


def test_an_unusable_row_is_named_by_source_query_and_side(pairs, preprocessor, tmp_path):
    missing = Item((Image(tmp_path / "missing.png"),))
    bad = Pair(Item.of("x"), (missing,), query_id="q9", source="photos")

    with pytest.raises(InputError, match=r"photos: q9: target: .*missing\.png"):
        PairPreparer(preprocessor, Chunks())(0, [*pairs, bad])


def test_the_preparer_travels_to_workers_and_repeats_itself(pairs, preprocessor):
    prepare = PairPreparer(preprocessor, Chunks(tokens=40))

    first, again = prepare(3, pairs), pickle.loads(pickle.dumps(prepare))(3, pairs)

    assert flat_rows(first) == flat_rows(again)
    assert torch.equal(first.candidates.target_keys, again.candidates.target_keys)


def test_a_batch_moves_whole(pairs, preprocessor):
    moved = PairPreparer(preprocessor, Chunks(), filler=True)(0, pairs).to("meta")

    tensors = [
        moved.query_rows,
        moved.target_rows,
        moved.candidates.owner,
        moved.filler.ids,
        moved.chunks[0].ids,
        moved.chunks[0].pixels,
    ]
    assert {t.device.type for t in tensors} == {"meta"}
    assert moved.query_ids == ["0", "1", "2", "3"]


def test_a_pair_without_negatives_takes_no_part_in_others_hard_negatives(pairs, preprocessor):
    batch = PairPreparer(preprocessor, Chunks())(0, pairs)

    owners = batch.candidates.owner[~batch.candidates.positive].tolist()
    assert owners == [0, 0]


def test_a_rank_without_rows_gets_an_empty_batch(preprocessor):
    batch = PairPreparer(preprocessor, Chunks())(3, [])

    assert batch.chunks == []
    assert len(batch.query_rows) == len(batch.target_rows) == len(batch.candidates.owner) == 0
    assert batch.composition == {}


@pytest.mark.parametrize("chunks", [Chunks(), Chunks(rows=1), Chunks(tokens=20)])
def test_with_filler_every_chunk_has_media_and_every_row_is_found(chunks, pairs, preprocessor):
    plain, filled = (PairPreparer(preprocessor, chunks, filler=filler)(0, pairs) for filler in (False, True))

    assert any(chunk.pixels is None for chunk in plain.chunks) == (chunks == Chunks(rows=1))
    assert all(chunk.pixels is not None for chunk in filled.chunks)
    assert len(filled.filler) == 1
    assert filled.filler.pixels is not None
    for places in ("query_rows", "target_rows"):
        found = [[flat_rows(batch)[i] for i in getattr(batch, places)] for batch in (plain, filled)]
        assert found[0] == found[1]


def test_classes_have_the_same_number_in_every_batch(pairs, preprocessor):
    first = PairPreparer(preprocessor, Chunks())(0, pairs[:1]).candidates.classes
    again = PairPreparer(preprocessor, Chunks())(1, [pairs[3], pairs[0]]).candidates.classes

    assert first[0] == again[1]
    assert again[0] == -1
