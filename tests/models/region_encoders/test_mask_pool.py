"""Mask pooling: a region is the mean of features under its mask, from several layers, and its shape."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from mmembed import Embedder, Image, Region
from mmembed.counters import counting
from mmembed.errors import InputError
from mmembed.models.sam2.predict import predict_masks
from mmembed.models.sam2.sizes import scratch_model
from mmembed.models.sequence import Features, collate
from mmembed.models.settings import MaskPool, Sam2Scratch
from tests.cases import WORDS, draw
from tests.families import FAMILIES, family_settings
from tests.regions import MAPPED, SIZES, full_mask, marked, mixed_items, random_mask


def pooling(architecture="qwen2_vl", regions=None, **choices):
    settings = replace(family_settings(architecture, **choices), regions=regions or MaskPool(layers=(0, 1, -1)))
    torch.manual_seed(0)
    return Embedder(settings, texts=WORDS).eval()


def tokens_of(embedder, item, features=None):
    batch = collate(embedder.prepare([item], "query"))
    with torch.no_grad():
        features = embedder.vision(batch) if features is None else features
        return embedder.regions.tokens(batch, features, embedder.backbone)


def test_a_region_is_two_tokens():
    preparer = MaskPool().preparer()
    item = marked((84, 56), Region(box=(0, 0, 9, 9)), Region(points=((1, 1, 1), (50, 50, 0))), full_mask(84, 56))

    assert [slot.tokens for slot in preparer.slots(0, item.media[0], (84, 56))] == [2, 2, 2]
    assert preparer.slots(0, Image(draw(8, 8)), (8, 8)) == []


def test_tokens_are_what_pooling_pixel_by_pixel_finds():
    embedder = pooling(regions=MaskPool(layers=(1,), shape_side=4, point_side=0.3))
    size = (140, 84)
    regions = [Region(box=(10, 5, 133, 50)), random_mask(*size), Region(points=((20, 60, 1), (90, 40, 1), (95, 45, 0)))]
    item = marked(size, *regions)
    features = embedder.vision(collate(embedder.prepare([item], "query")))

    found = tokens_of(embedder, item)

    # the map of 3 x 5 cells as a picture of its features, a pixel each
    layers = [layer[0].view(3, 5, -1) for layer in (features.maps, features.taps[0])]
    expected = []
    for region in regions:
        mask = slow_mask(region, size)
        expected += slow_tokens(embedder.regions, [layer.detach() for layer in layers], mask)
    assert torch.allclose(found, torch.stack(expected), atol=1e-4)


def slow_mask(region, size):
    width, height = size
    if region.mask is not None:
        return region.mask
    mask = np.zeros((height, width), dtype=bool)
    if region.box is not None:
        x0, y0, x1, y1 = region.box
        mask[y0:y1, x0:x1] = True
    for label in (1, 0):
        for x, y, inside in region.points:
            # half of three tenths of 84 pixels
            if inside == label:
                left, top, right, bottom = (round(v) for v in (x - 12.6, y - 12.6, x + 12.6, y + 12.6))
                mask[max(top, 0) : bottom, max(left, 0) : right] = bool(label)
    return mask


def slow_tokens(encoder, layers, mask, side=4, pixels=28):
    height, width = mask.shape
    rows, columns = mask.any(1).nonzero()[0], mask.any(0).nonzero()[0]
    x0, y0, x1, y1 = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    means = []
    for layer in layers:
        total, count = torch.zeros(layer.shape[-1], dtype=torch.float64), 0
        for y, x in zip(*mask.nonzero(), strict=True):
            total, count = total + layer[y // pixels, x // pixels], count + 1
        means.append((total / count).float())
    facts = torch.tensor([np.log(mask.mean()), x0 / width, y0 / height, x1 / width, y1 / height]).float()
    fine = torch.from_numpy(mask[y0:y1, x0:x1]).float()
    # every pixel as many, so that a cell of the small mask is whole ones
    fine = fine.repeat_interleave(side, 0).repeat_interleave(side, 1)
    shape = F.avg_pool2d(fine[None], (fine.shape[0] // side, fine.shape[1] // side))[0].flatten()
    normalised = [norm(mean) for norm, mean in zip(encoder.norms, means, strict=True)]
    region = means[0] + encoder.region(torch.cat([*normalised, facts]))
    return [region.detach(), encoder.shape(torch.cat([shape, facts])).detach()]


@pytest.mark.parametrize("architecture", MAPPED)
def test_the_box_of_the_whole_picture_is_its_full_mask_whatever_the_aspect(architecture):
    embedder = pooling(architecture)

    for width, height in SIZES:
        box = tokens_of(embedder, marked((width, height), Region(box=(0, 0, width, height))))
        mask = tokens_of(embedder, marked((width, height), full_mask(width, height)))

        assert box.shape == (2, embedder.backbone.width)
        assert (box - mask).abs().max() <= 1e-6


def test_a_box_is_its_mask():
    embedder = pooling()
    mask = np.zeros((56, 84), dtype=bool)
    mask[10:44, 20:77] = True

    box, drawn = (tokens_of(embedder, marked((84, 56), r)) for r in (Region(box=(20, 10, 77, 44)), Region(mask=mask)))

    assert torch.allclose(box, drawn, atol=1e-5)


def test_a_box_of_less_than_a_pixel_is_the_cell_that_it_lies_in():
    embedder = pooling()
    size = (2800, 2800)
    (features,) = embedder.vision(collate(embedder.prepare([marked(size)], "query"))).maps
    with torch.no_grad():
        for parameter in embedder.regions.region.parameters():
            parameter.zero_()

    (token, _) = tokens_of(embedder, marked(size, Region(box=(0.3, 0.3, 0.301, 0.301))))

    assert torch.allclose(token, features[0].detach(), atol=1e-5)


def test_a_flipped_map_under_the_flipped_mask_pools_the_same():
    embedder = pooling(regions=MaskPool())
    mask = random_mask(140, 84).mask
    grid = torch.randn(3, 5, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for parameter in embedder.regions.region[2].parameters():
            parameter.zero_()

    there = tokens_of(embedder, marked((140, 84), Region(mask=mask)), Features([grid.flatten(0, 1)]))
    flipped = marked((140, 84), Region(mask=mask[:, ::-1].copy()))
    mirrored = tokens_of(embedder, flipped, Features([grid.flip(1).flatten(0, 1)]))

    assert torch.allclose(there[0], mirrored[0], atol=1e-5)
    assert not torch.allclose(there[1], mirrored[1], atol=1e-3)


@pytest.mark.parametrize("architecture", MAPPED)
def test_moving_the_prompt_moves_the_embedding(architecture):
    embedder = pooling(architecture)
    boxes = [(60, 60, 80, 80), (75, 60, 95, 80), (90, 90, 110, 110)]
    points = [((60, 60, 1),), ((80, 60, 1),), ((60, 60, 0),)]

    vectors = embedder.encode(
        [marked((168, 168), Region(box=box)) for box in boxes]
        + [marked((168, 168), Region(points=each)) for each in points]
    )

    apart = (vectors[:, None] - vectors).norm(dim=-1)[~torch.eye(6, dtype=torch.bool)]
    assert (apart > 1e-5).all()


@pytest.mark.parametrize("architecture", MAPPED)
def test_without_a_region_nothing_changes(architecture):
    plain = Embedder(family_settings(architecture), texts=WORDS).eval()
    items = FAMILIES[architecture].items

    assert torch.equal(pooling(architecture).encode(items), plain.encode(items))


def test_sixteen_regions_of_a_picture_are_one_tower_forward_that_keeps_its_taps():
    embedder = pooling()
    items = [marked((84, 56), Region(box=(4 * i, 0, 4 * i + 20, 50))) for i in range(16)]

    with counting() as work:
        together = embedder.encode(items, batch_tokens=100)

    assert work["tower_forwards"] == 1 and work["language_rows"] == 16
    assert len({tuple(vector.tolist()) for vector in together}) == 16
    assert (together[3] - embedder.encode(items[3])).abs().max() <= 1e-5


@pytest.mark.parametrize("architecture", MAPPED)
def test_a_mixed_batch_is_the_same_as_one_by_one(architecture):
    embedder = pooling(architecture)
    items = mixed_items(architecture)

    together = embedder.encode(items)

    apart = torch.cat([embedder.encode(item) for item in items])
    assert (together - apart).abs().max() <= 1e-5


@pytest.mark.parametrize("architecture", ["qwen2_5_vl", "llava_onevision", "phi3_v"])
def test_a_gradient_reaches_the_encoder_the_map_and_the_taps(architecture):
    embedder = pooling(architecture).train()
    batch = collate(embedder.prepare([marked((168, 168), Region(box=(56, 56, 110, 110)))], "query"))
    features = embedder.vision(batch)
    maps, taps = ([one.detach().requires_grad_() for one in layer] for layer in (features.maps, features.taps[1]))

    given = replace(features, maps=maps, taps=[features.taps[0], taps, features.taps[2]])
    tokens = embedder.regions.tokens(batch, given, embedder.backbone)
    (tokens * torch.randn(tokens.shape)).sum().backward()

    assert all(0 < (layer[0].grad.abs().sum(1) > 0).float().mean() < 1 for layer in (maps, taps))
    vectors = embedder(batch)
    (vectors * torch.randn(vectors.shape)).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in embedder.regions.parameters())


def test_it_is_saved_and_opened_to_the_same_bits(tmp_path):
    embedder = pooling(regions=MaskPool(layers=(-1,), shape_side=5, point_side=0.2))
    items = [marked((84, 56), Region(box=(3, 4, 50, 40))), marked((84, 56), Region(points=((30, 30, 1),)))]
    before = embedder.encode(items)

    embedder.save(tmp_path / "model")
    opened = Embedder.from_pretrained(tmp_path / "model", device="cpu")

    assert opened.settings.regions == MaskPool(layers=(-1,), shape_side=5, point_side=0.2)
    assert torch.equal(opened.encode(items), before)


def test_it_runs_beside_a_backbone_in_bfloat16():
    items = [marked((84, 56), Region(box=(3, 4, 50, 40))), marked((84, 56), random_mask(84, 56))]

    whole, half = (pooling(**choices).encode(items) for choices in ({}, {"dtype": "bfloat16"}))

    assert F.cosine_similarity(whole, half).min() > 0.98


def test_a_mask_that_the_tower_did_not_see_pools_nothing():
    # LLaVA's CLIP sees the square in the middle
    embedder = pooling("llava", MaskPool())

    tokens = tokens_of(embedder, marked((280, 112), Region(box=(0, 0, 60, 112))))

    facts = torch.tensor([np.log(60 / 280), 0, 0, 60 / 280, 1]).float()
    expected = embedder.regions.region(torch.cat([embedder.regions.norms[0].bias, facts]))
    assert torch.allclose(tokens[0], expected, atol=1e-5)


@pytest.fixture(scope="module")
def sam_directory(tmp_path_factory):
    """A small SAM 2 as transformers saves it."""
    directory = tmp_path_factory.mktemp("sam")
    scratch_model(Sam2Scratch()).save_pretrained(directory)
    return str(directory)


def test_sam_makes_the_masks_of_points_and_boxes_and_encodes_a_picture_once(sam_directory):
    embedder = pooling(regions=MaskPool(sam=sam_directory))
    drawn = random_mask(84, 56)
    asked = [Region(box=(3, 4, 50, 40)), Region(points=((30, 30, 1), (50, 5, 0))), drawn]

    with counting() as work:
        found = tokens_of(embedder, marked((84, 56), *asked))
    masks = predict_masks(embedder, Image(draw(84, 56), tuple(asked)))

    assert (work["sam_images"], work["sam_prompts"]) == (1, 2)
    meant = [Region(mask=masks[0].mask.numpy()), Region(mask=masks[1].mask.numpy()), drawn]
    assert meant[0].mask.sum() not in (0, 47 * 36)
    assert torch.allclose(found, tokens_of(embedder, marked((84, 56), *meant)), atol=1e-6)


def test_another_click_encodes_nothing_for_sam_and_nothing_in_the_tower_of_the_same_call(sam_directory):
    embedder = pooling(regions=MaskPool(sam=sam_directory))
    clicks = [marked((84, 56), Region(points=((x, 30, 1),))) for x in (10, 40, 70)]

    with counting() as work:
        embedder.encode(clicks[0])
        embedder.encode(clicks[1:])

    assert (work["sam_images"], work["tower_forwards"]) == (1, 2)


def test_the_weights_of_sam_stay_in_their_own_checkpoint(sam_directory, tmp_path):
    embedder = pooling(regions=MaskPool(sam=sam_directory))
    items = [marked((84, 56), Region(box=(3, 4, 50, 40))), marked((84, 56), Region(points=((30, 30, 1),)))]
    before = embedder.encode(items)

    embedder.save(tmp_path / "model")

    names = load_file(tmp_path / "model" / "regions.safetensors").keys()
    assert names and not any(name.startswith("sam.") for name in names)
    assert torch.equal(Embedder.from_pretrained(tmp_path / "model", device="cpu").encode(items), before)


def test_a_sam_on_this_machine_is_named_by_its_whole_path_where_the_model_is_saved(
    sam_directory, tmp_path, monkeypatch
):
    monkeypatch.chdir(Path(sam_directory).parent)
    embedder = pooling(regions=MaskPool(sam=Path(sam_directory).name))
    item = marked((84, 56), Region(points=((20, 20, 1),)))
    expected = embedder.encode(item)
    embedder.save(tmp_path / "model")
    monkeypatch.chdir(tmp_path)

    assert torch.equal(Embedder.from_pretrained(tmp_path / "model", device="cpu").encode(item), expected)


def test_a_place_without_a_sam_is_refused(tmp_path):
    with pytest.raises(InputError, match="SAM 2"):
        MaskPool(sam=str(tmp_path / "none")).preparer()


@pytest.mark.parametrize("architecture", [name for name in FAMILIES if name not in MAPPED])
def test_a_family_without_a_map_is_refused_when_the_model_is_built(architecture):
    with pytest.raises(InputError, match="regions: expected"):
        pooling(architecture)


def test_a_layer_that_the_tower_has_not_is_refused_when_the_model_is_built():
    with pytest.raises(InputError, match=r"regions\.layers: expected layers -3 to 2 of the tower, got \[7\]"):
        pooling(regions=MaskPool(layers=(7,)))


def test_points_that_leave_nothing_are_refused_with_their_item():
    with pytest.raises(InputError, match=r"item 0: region\.points: expected a point inside whose square"):
        pooling().encode([marked((84, 56), Region(points=((30, 30, 1), (30, 30, 0))))])


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"shape_side": 0}, r"regions\.shape_side: expected at least 1"), ({"point_side": 2.0}, r"regions\.point_side")],
)
def test_settings_without_meaning_are_refused(fields, message):
    with pytest.raises(InputError, match=message):
        MaskPool(**fields)
