"""Halves of a batch: what they hold, and that they embed as the whole does."""

from dataclasses import fields, replace

import pytest
import torch

from mmembed import Embedder, Image, Item, Region, Video
from mmembed.models.halving import halved
from mmembed.models.sequence import collate
from mmembed.models.settings.regions import MaskChannel, RoiReplay
from tests.cases import WORDS, draw
from tests.families import FAMILIES, family_embedder, family_settings

SHARED, OTHER = draw(84, 56), draw(56, 56)
LEFT, RIGHT = Region(box=(0, 0, 42, 56)), Region(box=(42, 0, 84, 56))
BOTH = {
    "both_halves": [
        Item((Image(SHARED),)),
        Item((Image(OTHER), " or ", Image(SHARED))),
        Item((Image(SHARED), "which?")),
    ],
    # of the second half all media are the batch's, in another order
    "reversed": [Item((Image(SHARED), Image(OTHER))), Item((Image(OTHER), Image(SHARED), Image(OTHER)))],
    "words_behind": [Item((Image(SHARED), "what?")), Item.of("a ring"), Item.of("a red circle"), Item.of("blue")],
    "words_ahead": [Item.of("a ring"), Item((Image(SHARED), "what?")), Item((Image(OTHER),))],
    "words": [Item.of("a ring"), Item.of("a red circle")],
}


def same(ours, theirs):
    return torch.equal(ours, theirs) if isinstance(ours, torch.Tensor) else ours == theirs


def rows_of(embedder, items):
    return [embedder.prepare([item], ("query", "target")[i % 2])[0] for i, item in enumerate(items)]


@pytest.mark.parametrize("name", BOTH)
def test_a_half_is_the_batch_of_its_rows_alone(name, scratch_embedder):
    rows = rows_of(scratch_embedder("qwen2_vl"), BOTH[name])
    middle = len(rows) // 2

    halves = halved(collate(rows))

    for half, alone in zip(halves, (collate(rows[:middle]), collate(rows[middle:])), strict=True):
        # the order of media is the whole batch's
        order = [alone.media.index(medium) for medium in half.media]
        assert [half.media[slot] for slot in half.slots] == [alone.media[slot] for slot in alone.slots]
        for f in fields(half):
            ours, theirs = getattr(half, f.name), getattr(alone, f.name)
            if f.name in ("grids", "blocks", "sizes"):
                assert torch.equal(ours, theirs[order])
            elif f.name == "pixels" and ours is not None:
                pieces = theirs.split(alone.blocks.tolist())
                assert torch.equal(ours, torch.cat([pieces[i] for i in order]))
            elif f.name not in ("slots", "media"):
                assert same(ours, theirs), f.name


def quarters(batch):
    return [part for half in halved(batch) for part in (halved(half) if len(half) > 1 else [half])]


def assert_embeds_as_one(embedder, rows):
    batch = collate(rows)
    with torch.no_grad():
        whole = embedder(batch)
        parts = torch.cat([embedder(part) for part in quarters(batch)])
    assert (parts - whole).abs().max() <= 2e-6
    assert (whole[0] - whole[1]).abs().max() > 1e-3


@pytest.mark.parametrize("name", FAMILIES)
def test_halves_of_halves_embed_as_the_whole_in_every_family(name):
    embedder = family_embedder(name).eval()

    assert_embeds_as_one(embedder, rows_of(embedder, FAMILIES[name].items))


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen3_vl"])
def test_pictures_beside_clips_embed_as_they_do_without_them(family, scratch_embedder, mixed_items):
    embedder = scratch_embedder(family)
    clip = Item.of({"video": Video((SHARED, SHARED.rotate(180), SHARED)), "text": "describe the clip"})

    assert_embeds_as_one(embedder, rows_of(embedder, [clip, *mixed_items, *BOTH["both_halves"]]))


@pytest.mark.parametrize("regions", [MaskChannel(), RoiReplay()])
def test_regions_stay_with_their_rows(regions):
    torch.manual_seed(0)
    embedder = Embedder(replace(family_settings("qwen2_vl"), regions=regions), texts=WORDS).eval()
    for parameter in embedder.regions.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    items = [
        Item((Image(SHARED, (LEFT,)), "which one?")),
        Item.of("a ring"),
        Item((Image(OTHER), Image(SHARED, (RIGHT,)))),
        Item((Image(SHARED, (RIGHT,)), "which one?")),
        Item((Image(SHARED), "which one?")),
    ]
    rows = rows_of(embedder, items)

    assert_embeds_as_one(embedder, rows)
    vectors = embedder(collate(rows)).detach()
    assert (vectors[3] - vectors[4]).abs().max() > 1e-3


def test_a_single_row_has_no_halves(scratch_embedder):
    with pytest.raises(ValueError, match="at least 2 rows, got 1"):
        halved(collate(rows_of(scratch_embedder("qwen2_vl"), BOTH["words"][:1])))
