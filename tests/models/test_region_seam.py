"""Where region encoders meet rows, batches and sequences: tokens are kept free, counted, named and filled."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mmembed import Image, Item, Region
from mmembed.counters import counting
from mmembed.errors import InputError
from mmembed.media.regions import scale_regions
from mmembed.models.prompts import Kind, Segment, render
from mmembed.models.region_encoders.encoder import TokenRegionEncoder, check_region_encoder
from mmembed.models.region_encoders.preparer import RegionPreparer
from mmembed.models.region_prompts import RegionPrompt, RegionSlot, prompts_of
from mmembed.models.sequence import KEPT_FREE, PatchMap, collate
from mmembed.models.settings import ChatPrompt, RawPrompt
from tests.cases import draw
from tests.families import LANGUAGE, READS_PICTURES, family_embedder

FAMILIES = [name for name in READS_PICTURES if name in LANGUAGE]


class Two(RegionPreparer):
    """Two tokens a region."""

    def tokens(self, prompt):
        return 2 if prompt else 0


class Leading(RegionPreparer):
    """Three tokens for each still picture, in front of the row."""

    leads = True

    def slots(self, number, medium, size):
        return [RegionSlot(number, 3, None)] if isinstance(medium, Image) else []


class Left(TokenRegionEncoder):
    """Tokens that are the left edge of their region, all over."""

    def tokens(self, batch, features, backbone):
        edges = [slot.prompt.bounds[0] if slot.prompt else -1.0 for slot in batch.regions for _ in range(slot.tokens)]
        return torch.tensor(edges)[:, None].expand(-1, backbone.width)


def told(name, preparer=Two, **choices):
    """A model of a family with an encoder put beside it."""
    model = family_embedder(name, **choices)
    model.backbone.preprocessor.regions = preparer()
    model.regions = Left()
    return model


def marked(shown, *boxes, text="what is here"):
    return Item((Image(shown, tuple(Region(box=box) for box in boxes)),), text, verbatim=False)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_region_keeps_tokens_free_right_behind_its_picture_and_nothing_else_changes(name):
    model, shown = told(name), draw(84, 56)

    plain, one, two = model.prepare(
        [marked(shown), marked(shown, (0, 0, 40, 56)), marked(shown, (0, 0, 40, 56), (7, 0, 84, 50))], "query"
    )

    for row, regions in ((plain, 0), (one, 1), (two, 2)):
        free = row.ids == KEPT_FREE
        assert int(free.sum()) == 2 * regions
        assert torch.equal(free, row.kinds == Kind.REGION)
        assert row.ids[~free].tolist() == plain.ids.tolist()
        assert row.kinds[~free].tolist() == plain.kinds.tolist()
        assert [medium.fingerprint for medium in row.media] == [medium.fingerprint for medium in plain.media]
    last = int((one.kinds == Kind.IMAGE).nonzero()[-1])
    first = int((one.ids == KEPT_FREE).nonzero()[0])
    between = set(one.kinds[last + 1 : first].tolist())
    assert first > last
    assert between <= {Kind.TEMPLATE}
    assert [slot.medium for slot in two.regions] == [0, 0]
    assert len({row.fingerprint for row in (plain, one, two)}) == 3


@pytest.mark.parametrize("name", FAMILIES)
def test_free_tokens_are_filled_in_order_and_no_others(name):
    model, shown, other = told(name), draw(84, 56), draw(56, 56)
    items = [
        marked(shown, (21, 0, 84, 56)),
        Item.of("words alone"),
        Item((Image(other, (Region(box=(14, 0, 56, 56)),)), "and", Image(shown, (Region(box=(42, 0, 84, 56)),)))),
    ]
    batch = collate(model.prepare(items, "query"))
    features = model.vision(batch)

    bare = model.backbone.embed(batch, features)
    filled = model.regions(bare, batch, features, model.backbone)

    free = batch.kept_free
    assert torch.equal(filled.embeds[~free], bare.embeds[~free])
    assert filled.embeds[free][:, 0].tolist() == [0.25, 0.25, 0.25, 0.25, 0.5, 0.5]
    assert [slot.row for slot in batch.regions] == [0, 2, 2]
    assert [batch.sizes[slot.medium].tolist() for slot in batch.regions] == [[84, 56], [56, 56], [84, 56]]


@pytest.mark.parametrize("name", FAMILIES)
def test_rows_embed_alone_as_they_do_beside_others_and_one_picture_passes_the_tower_once(name):
    model, shown = told(name), draw(84, 56)
    items = [marked(shown, (x, 0, x + 30, 56)) for x in range(0, 48, 12)] + [marked(shown), Item.of("words")]

    with counting() as work:
        together = model.encode(items)

    assert work["tower_forwards"] == 1
    alone = torch.cat([model.encode(item) for item in items])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)
    assert (torch.cdist(together, together) + torch.eye(6)).min() > 1e-4


@pytest.mark.parametrize("name", FAMILIES)
def test_leading_tokens_stand_in_front_at_position_0_and_all_others_count_on_behind_them(name):
    shown = draw(84, 56)
    plain, led = (model.prepare([marked(shown)], "query")[0] for model in (family_embedder(name), told(name, Leading)))

    assert led.ids.tolist() == [KEPT_FREE] * 3 + plain.ids.tolist()
    assert led.kinds.tolist() == [Kind.REGION] * 3 + plain.kinds.tolist()
    assert led.positions[:, :3].eq(0).all()
    assert torch.equal(led.positions[:, 3:], plain.positions + 3)


def test_free_tokens_count_on_as_words_do():
    model = told("qwen2_vl", prompt=RawPrompt(), positions="sequential")

    row = model.prepare([marked(draw(84, 56), (0, 0, 40, 56))], "query")[0]

    assert row.positions[0].tolist() == list(range(len(row)))


@pytest.mark.parametrize("preparer", [Two, Leading])
def test_free_tokens_count_in_max_length_and_are_never_cut(preparer):
    model, shown = told("qwen2_vl", preparer, prompt=RawPrompt()), draw(84, 56)
    item = marked(shown, (0, 0, 40, 56), text="many words that may be cut away")
    preprocessor = model.backbone.preprocessor
    media = int((preprocessor(item, "query").kinds != Kind.INSTRUCTION).sum()) - 1

    preprocessor.settings = replace(preprocessor.settings, max_length=media + 2)
    assert len(preprocessor(item, "query")) == media + 2

    preprocessor.settings = replace(preprocessor.settings, max_length=media - 2)
    with pytest.raises(InputError, match=f"expected media and regions within max_length {media - 2}"):
        preprocessor(item, "query")


def test_no_separator_stands_between_a_picture_and_its_tokens_whatever_the_style():
    item = Item.of({"image": ["a.png", "b.png"], "text": "words"}, "Find it:")
    media = ["<I>", "<I>"]

    raw = render(item, RawPrompt(), media, free_words=["<I>", ""])
    verbatim = render(replace(item, verbatim=True), RawPrompt(), media, free_words=["", "<I>"])
    laid = render(replace(item, layout="{media}\n{instruction} {text}"), RawPrompt(), media, free_words=["<I>", ""])

    assert "".join(s.text for s in raw) == "<I><I> <I> Find it: words"
    assert "".join(s.text for s in verbatim) == "Find it: <I><I><I>words"
    assert "".join(s.text for s in laid) == "<I><I><I>\nFind it: words"
    assert [s.free_for for s in raw if s.kind is Kind.REGION] == [0]
    assert [s.free_for for s in verbatim if s.kind is Kind.REGION] == [1]


def test_in_a_chat_free_tokens_stand_behind_the_picture_and_no_template_reads_them():
    def template(messages, generation_prompt):
        parts = messages[-1]["content"]
        return "".join("<s><|image_pad|><e>" if part["type"] == "image" else part["text"] for part in parts)

    segments = render(Item.of({"image": "a.png", "text": "x"}), ChatPrompt(), ["<I>"], template, free_words=["<I>"])

    assert "".join(s.text for s in segments) == "<s><I><e><I>x"
    assert Segment("<I>", Kind.REGION, free_for=0) in segments


def test_a_region_in_shares_is_that_of_its_picture():
    mask = np.zeros((50, 100), dtype=bool)
    mask[10:20, 30:60] = True
    image = Image(
        "a.png", (Region(box=(-0.5, 5, 50, 50)), Region(points=((25, 50.5, 1), (75, 5, 0))), Region(mask=mask))
    )

    box, points, drawn = prompts_of(image, (100, 50))

    assert box.box == (0, 0.1, 0.5, 1)
    assert points.points == ((0.25, 1.0, 1), (0.75, 0.1, 0))
    assert points.bounds == (0.25, 1.0, 0.25, 1.0)
    assert drawn.bounds == pytest.approx((0.3, 0.2, 0.6, 0.4))
    assert len({prompt.fingerprint() for prompt in (box, points, drawn)}) == 3


@pytest.mark.parametrize("kind", ["uint8", "int32"])
def test_a_mask_of_numbers_is_that_of_what_is_not_0(kind):
    drawn = np.zeros((50, 100), dtype=kind)
    drawn[10:20, 30:60] = 255
    regions = (Region(mask=drawn), Region(mask=drawn > 0))

    numbers, booleans = prompts_of(Image("a.png", regions), (100, 50))
    small_numbers, small_booleans = scale_regions(Image("a.png", regions), (100, 50), (20, 20)).regions

    assert numbers.mask.dtype == bool
    assert np.array_equal(numbers.mask, booleans.mask)
    assert numbers.fingerprint() == booleans.fingerprint()
    assert np.array_equal(small_numbers.mask, small_booleans.mask)


def test_a_box_in_cells_lies_where_its_picture_lies_on_the_map():
    patches = PatchMap(torch.zeros(4, 8, 1), (1.0, 0.0, 7.0, 4.0))

    assert patches.cells((0, 0, 1, 1)) == (1, 0, 7, 4)
    assert patches.cells((0.5, 0.25, 1, 0.5)) == (4, 1, 7, 2)


def test_an_encoder_of_tokens_is_refused_where_there_is_no_sequence():
    model = family_embedder("clip")

    with pytest.raises(InputError, match=r"regions: expected an encoder without tokens.*got Left; use Overlay"):
        check_region_encoder(Left(), model.backbone)


def test_prompts_without_points_inside_are_bounded_by_those_outside():
    assert RegionPrompt((10, 10), points=((0.5, 0.5, 0), (0.7, 0.2, 0))).bounds == (0.5, 0.2, 0.7, 0.5)


def test_rows_about_one_picture_are_not_torn_apart_where_a_window_ends():
    model = told("qwen2_vl")
    pictures = [draw(84, 56, seed) for seed in range(4)]
    items = [marked(shown, (x, 0, x + 30, 56)) for shown in pictures for x in range(0, 48, 6)]

    with counting() as work:
        model.encode(items, batch_tokens=16)

    assert work["tower_forwards"] == 4
