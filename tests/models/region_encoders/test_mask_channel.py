"""A second patch embedding for the mask of all regions: where it marks, what it adds, and that it trains."""

from dataclasses import replace

import numpy as np
import PIL.Image
import pytest
import torch

from mmembed import Embedder, Image, Item, Pair, Region
from mmembed.counters import counting
from mmembed.errors import InputError
from mmembed.losses.settings import Contrastive
from mmembed.models.sequence import collate
from mmembed.models.settings import Speed
from mmembed.models.settings.regions import MaskChannel
from mmembed.training.batches import PairPreparer
from mmembed.training.module import EmbedderModule
from mmembed.training.settings import Chunks, Optim, Stage
from tests.cases import WORDS, draw
from tests.families import FAMILIES, READS_PICTURES, family_embedder, family_settings, lora_of
from tests.speeds import at_speed

SIZE = (84, 56)
PICTURE = draw(*SIZE)
LEFT, RIGHT = Region(box=(0, 0, 42, 56)), Region(box=(42, 0, 84, 56))


def channelled(name, *, loud=True, **backbone):
    """A small model of a family with a mask channel, whose weights are no longer zero where it is loud."""
    embedder = Embedder(replace(family_settings(name, **backbone), regions=MaskChannel()), texts=WORDS)
    if loud:
        torch.nn.init.normal_(embedder.regions.channel.weight, std=0.05)
    return embedder


def seen(*regions, text="a red circle", picture=PICTURE):
    return Item((Image(picture, regions), text))


def marks(embedder, *regions, picture=PICTURE):
    return embedder.prepare([seen(*regions, picture=picture)], "query")[0].media[0].marks


def cut(embedder, picture):
    """A picture in one channel as the family cuts it, ``[P, 1, p, p]``."""
    return embedder.prepare([Item((Image(picture), "x"))], "query")[0].media[0].pixels[:, 0]


@pytest.mark.parametrize("size", [(84, 56), (56, 112), (224, 28), (40, 150)])
@pytest.mark.parametrize("name", READS_PICTURES)
def test_the_mask_is_cut_as_the_picture_is_and_what_a_family_pads_with_is_unmarked(name, size):
    embedder = channelled(name)
    picture = draw(*size)
    left = Region(box=(0, 0, size[0] // 2, size[1]))
    black, white = PIL.Image.new("RGB", size), PIL.Image.new("RGB", size, "white")
    half = black.copy()
    half.paste("white", (0, 0, size[0] // 2, size[1]))
    padding = cut(embedder, black)
    outside = padding == cut(embedder, white)

    whole, found = (marks(embedder, region, picture=picture) for region in (Region(box=(0, 0, *size)), left))

    assert not whole[outside].any()
    # where a resized picture blends into what it is padded with, both are between
    assert (whole[~outside] == 255).float().mean() > 0.9
    assert torch.equal(found[~outside].int(), (cut(embedder, half).int() - padding.int())[~outside])
    assert 0 < found.float().sum() < 0.7 * whole.float().sum()


def test_a_box_and_the_mask_of_its_pixels_mark_the_same():
    embedder = channelled("qwen2_vl")
    mask = np.zeros(SIZE[::-1], dtype=bool)
    mask[8:40, 10:33] = True

    assert torch.equal(marks(embedder, Region(mask=mask)), marks(embedder, Region(box=(10, 8, 33, 40))))


def test_points_mark_squares_and_those_outside_are_cut_out():
    embedder = channelled("clip")
    # 0.1 of the shorter side: squares of 10 pixels in a picture that is not resized
    size, media = (56, 56), draw(56, 56)

    def marked(*points):
        return (marks(embedder, Region(points=points), picture=media)[0, 0] == 255).nonzero().tolist()

    def square(x, y):
        return [[row, column] for row in range(y - 3, y + 3) for column in range(x - 3, x + 3)]

    assert marked((20, 30, 1)) == square(20, 30)
    assert marked((20, 30, 1), (40, 30, 1)) == sorted(square(20, 30) + square(40, 30))
    assert marked((20, 30, 1), (21, 30, 0)) == [place for place in square(20, 30) if place[1] == 17]
    assert marked((21, 30, 0), (20, 30, 1)) == marked((20, 30, 1), (21, 30, 0))
    everywhere = [[row, column] for row in range(size[1]) for column in range(size[0])]
    assert marked((20, 30, 0)) == [place for place in everywhere if place not in square(20, 30)]


def test_several_regions_are_marked_together_and_a_small_one_is_not_lost():
    embedder = channelled("clip")

    both, left, right = (marks(embedder, *regions) for regions in ((LEFT, RIGHT), (LEFT,), (RIGHT,)))

    assert torch.equal(both, left.maximum(right).where(both != 255, both))
    assert (both == 255).all()
    assert marks(embedder, Region(box=(40.2, 20.2, 40.4, 20.4))).any()


def test_regions_are_marked_where_they_are_in_a_picture_that_is_made_square():
    media = replace(FAMILIES["qwen2_vl"].settings["media"], square=56)
    embedder = channelled("qwen2_vl", media=media)
    picture = draw(112, 28)
    mask = np.zeros((28, 112), dtype=bool)
    mask[:14, :56] = True
    squared = marks(embedder, Region(box=(0, 0, 28, 28)), picture=draw(56, 56))

    for region in (Region(box=(-0.8, -0.8, 56, 14)), Region(mask=mask)):
        assert torch.equal(marks(embedder, region, picture=picture), squared)


@pytest.mark.parametrize("name", READS_PICTURES)
def test_training_starts_from_the_model_without_it(name):
    embedder, plain = channelled(name, loud=False), family_embedder(name)

    expected = plain.encode([seen()])

    assert torch.equal(embedder.encode([seen()]), expected)
    assert torch.equal(embedder.encode([seen(LEFT)]), expected)


@pytest.mark.parametrize("name", READS_PICTURES)
def test_a_region_moves_the_embedding_and_no_region_leaves_it(name):
    embedder, plain = channelled(name), family_embedder(name)
    clips = [item for item in FAMILIES[name].items if item.media and not FAMILIES[name].pictures] or []
    items = [seen(), seen(LEFT), seen(RIGHT), seen(LEFT, RIGHT), Item.of("a red circle"), *clips]

    found = embedder.encode(items)

    assert torch.pdist(found[:4]).min() > 1e-4
    assert torch.equal(embedder.encode([items[0], items[4]]), plain.encode([items[0], items[4]]))
    one_by_one = torch.cat([embedder.encode([item]) for item in items])
    assert torch.allclose(found, one_by_one, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", [name for name in READS_PICTURES if FAMILIES[name].clips])
def test_a_clip_beside_a_marked_picture_is_as_it_was(name):
    embedder, plain = channelled(name), family_embedder(name)
    clips = FAMILIES[name].items[-2:]
    rows = embedder.prepare([seen(LEFT), *clips], "query")

    together = embedder.eval()(collate(rows)).detach()

    assert torch.allclose(together[1:], plain.encode(clips), atol=1e-5, rtol=0)
    assert torch.allclose(together[:1], embedder.encode([seen(LEFT)]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", READS_PICTURES)
def test_a_picture_and_its_regions_pass_the_tower_once(name):
    embedder = channelled(name)
    items = [seen(*regions, text=text) for regions in ((LEFT,), (), (RIGHT,)) for text in ("red", "blue", "a circle")]
    one_by_one = torch.cat([embedder.encode([item]) for item in items])

    with counting() as work:
        found = embedder.encode(items, batch_tokens=200)

    assert work["tower_forwards"] == 3
    assert torch.allclose(found, one_by_one, atol=1e-5, rtol=0)


def test_it_stands_beside_an_adapter_and_a_smaller_type(saved):
    backbone = {"scratch": None, "path": str(saved("qwen2_vl")), "dtype": "bfloat16"}
    settings = family_settings("qwen2_vl", lora=lora_of("qwen2_vl"), **backbone)
    embedder = Embedder(replace(settings, regions=MaskChannel()))
    torch.nn.init.normal_(embedder.regions.channel.weight)

    plain, marked = embedder.encode([seen(), seen(LEFT)])
    embedder(collate(embedder.prepare([seen(LEFT)], "query")))[:, :9].sum().backward()

    assert (plain - marked).abs().max() > 1e-3
    assert embedder.regions.channel.weight.grad.abs().max() > 0
    assert "regions.channel.weight" in embedder.trainable


@pytest.mark.parametrize("name", ["qwen2", "bert"])
def test_a_family_without_patches_says_so(name):
    with pytest.raises(InputError, match="regions: expected a backbone whose tower embeds patches of pixels, got Text"):
        channelled(name)


def test_a_convolutional_tower_says_so():
    settings = family_settings("clip")
    vision = {"layers": [1, 1, 1, 1], "width": 16, "image_size": 64}
    scratch = replace(settings.backbone.scratch, vision=vision)
    settings = replace(settings, backbone=replace(settings.backbone, scratch=scratch), regions=MaskChannel())

    with pytest.raises(InputError, match=r"regions: expected a backbone whose tower embeds patches .* DualEncoder"):
        Embedder(settings, texts=WORDS)


def hooks(embedder):
    return sum(len(module._forward_hooks) for module in embedder.backbone.modules())


def test_the_tower_is_left_as_it_was_also_after_an_error():
    embedder = channelled("qwen2_vl")
    batch = collate(embedder.prepare([seen(LEFT)], "query"))
    before = hooks(embedder)

    embedder(batch)
    assert hooks(embedder) == before
    with pytest.raises(RuntimeError), embedder.regions.marking(batch, embedder.backbone):
        assert hooks(embedder) == before + 1
        raise RuntimeError
    assert hooks(embedder) == before


def pairs():
    queries = [seen(LEFT), seen(RIGHT), seen(), Item.of("the same, but blue"), seen(LEFT, text="describe")]
    targets = [Item.of(text) for text in WORDS[:4]] + [Item((Image(draw(56, 56), (Region(box=(0, 0, 20, 20)),)),))]
    return [
        Pair(query, (target,), query_id=str(i), source="s")
        for i, (query, target) in enumerate(zip(queries, targets, strict=True))
    ]


def gradients(embedder, chunks):
    stage = Stage({}, steps=1, chunks=chunks, objective=Contrastive(temperature=0.1), optim=Optim(lr=1e-2))
    module = EmbedderModule(embedder.train(), stage, seed=0)
    embedder.zero_grad()
    module.gradients(PairPreparer(embedder.backbone.preprocessor, chunks)(0, pairs()))
    return {n: p.grad.clone() for n, p in embedder.named_parameters() if p.grad is not None}


def freeze_tower(embedder):
    embedder.backbone.tower.requires_grad_(False)
    embedder.trainable = frozenset(n for n, p in embedder.named_parameters() if p.requires_grad)


@pytest.mark.parametrize("frozen", [False, True], ids=["training tower", "frozen tower"])
@pytest.mark.parametrize("name", READS_PICTURES)
def test_it_learns_however_a_batch_is_cut_and_behind_a_frozen_tower(name, frozen):
    embedder = channelled(name, loud=False)
    if frozen:
        freeze_tower(embedder)
    whole = gradients(embedder, Chunks())

    cut = gradients(embedder, Chunks(rows=2, keep_mb=0))

    weight = "regions.channel.weight"
    assert whole[weight].abs().max() > 0
    assert torch.allclose(cut[weight], whole[weight], rtol=1e-3, atol=1e-4 * whole[weight].abs().max())
    assert not embedder.tower_is_frozen


def test_a_frozen_tower_is_one_whose_features_may_be_kept_once_the_channel_is_frozen_too():
    embedder = channelled("qwen2_vl")
    freeze_tower(embedder)
    assert not embedder.tower_is_frozen

    embedder.regions.requires_grad_(False)

    assert embedder.tower_is_frozen


@pytest.mark.parametrize("name", READS_PICTURES)
def test_recomputed_activations_give_the_same_gradient(name):
    kept, recomputed = channelled(name), channelled(name, gradient_checkpointing=True)
    recomputed.load_state_dict(kept.state_dict())

    # where activations are recomputed, the last layer is computed at all tokens
    with at_speed(kept, Speed(last_layer="all")):
        expected, ours = gradients(kept, Chunks()), gradients(recomputed, Chunks())

    assert ours.keys() == expected.keys()
    for key, gradient in expected.items():
        assert torch.allclose(ours[key], gradient, rtol=1e-3, atol=1e-5 * gradient.abs().max().item()), key


@pytest.mark.parametrize("name", ["qwen2_vl", "clip"])
def test_a_chunk_without_regions_is_given_one_where_weights_are_sharded(name):
    embedder = channelled(name).train()
    pair = Pair(seen(), (Item((Image(draw(56, 56)), "red")),), query_id="0", source="s")

    [chunk] = PairPreparer(embedder.backbone.preprocessor, Chunks(), filler=True)(0, [pair]).chunks
    embedder(chunk).sum().backward()

    assert len(chunk) == 3
    assert embedder.regions.channel.weight.grad is not None


def test_it_is_saved_and_opened_again(tmp_path):
    embedder = channelled("qwen2_vl")

    embedder.save(tmp_path / "model")

    opened = Embedder.from_pretrained(tmp_path / "model", device="cpu")
    assert torch.equal(opened.encode([seen(LEFT)]), embedder.encode([seen(LEFT)]))


def test_a_square_that_would_mark_nothing_is_refused():
    with pytest.raises(InputError, match=r"regions\.point_side: expected above 0 and at most 1, got 0"):
        MaskChannel(point_side=0)
